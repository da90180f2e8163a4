"""What is particular to one layer of a backbone."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Layer:
    """The properties of one layer that may differ between layers of a backbone.

    `attention_window`: the positions that a token attends to: all up to its own (None), those less
    than `size` back ("window", size), or those in its own block of `size` ("chunk", size).
    `attention_sinks`: the number of first positions that it attends to in addition to its window.
    `kv_source`: the layer whose keys and values it reads instead of making its own; `shares_kv`:
    whether others read its own. `conv`: it has a gated short convolution instead of attention;
    `delta`: a gated delta rule. `head_dim`, `hidden_dim`: the widths of its heads and of its
    feed-forward. `n_kv_heads`: how many heads of keys and values it has. `latent`: it has
    latent attention, to one vector of a token, its key and its value: `head_dim` is that vector's,
    and there is one KV head. `sparsity`: the part of
    the feed-forward's gates that is set to 0.
    """

    rope: Literal["global", "local", "none"]
    qk_norm: bool
    temperature: bool
    attention_window: tuple[Literal["window", "chunk"], int] | None
    attention_sinks: int
    kv_source: int | None
    shares_kv: bool
    moe: bool
    conv: bool
    delta: bool
    head_dim: int
    n_kv_heads: int
    latent: bool
    hidden_dim: int
    sparsity: float
