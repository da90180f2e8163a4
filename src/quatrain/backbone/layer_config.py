"""What is particular to one layer of a backbone."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Layer:
    """What one layer of a backbone has or lacks that another may not.

    `attention_window`: of the positions up to a token's own, which it attends to: all (None), those
    less than `size` back ("window", size), or those in its own block of `size` ("chunk", size).
    `attention_sinks`: so many of the first positions it attends to beside its window.
    `kv_source`: the layer whose keys and values it reads instead of making its own; `shares_kv`:
    whether others read its. `conv`: a gated short convolution is in attention's place; `delta`: a
    gated delta rule. `head_dim`, `hidden_dim`: the widths of its heads and of its feed-forward;
    `sparsity`: the part of that one's gates that is cut to 0.
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
    hidden_dim: int
    sparsity: float
