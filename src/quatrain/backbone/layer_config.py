"""What is particular to one layer of a backbone."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from quatrain.backbone.config import BackboneConfig


@dataclass(frozen=True)
class Layer:
    """The properties of one layer that may differ between layers of a backbone.

    `attention_window`: the positions that a token attends to: all up to its own (None), those less
    than `size` back ("window", size), or those in its own block of `size` ("chunk", size).
    `attention_sinks`: the number of first positions that it attends to in addition to its window.
    `kv_source`: the layer whose keys and values it reads instead of making its own; `shares_kv`:
    whether others read its own. `conv`: it has a gated short convolution instead of attention;
    `delta`: a gated delta rule. `mamba`: it has a state space, instead of attention or, if it
    `attends`, beside it. `head_dim`, `hidden_dim`: the widths of its heads and of its
    feed-forward. `n_kv_heads`: how many heads of keys and values it has. `latent`: it has
    latent attention, to one vector of a token, its key and its value: `head_dim` is that vector's,
    and there is one KV head. `feed_forward`: it has one; `sparsity`: the part of its gates that is
    set to 0.
    """

    rope: Literal["global", "local", "none"]
    qk_norm: bool
    temperature: bool
    attention_window: tuple[Literal["window", "chunk"], int] | None
    attention_sinks: int
    kv_source: int | None
    shares_kv: bool
    feed_forward: bool
    moe: bool
    conv: bool
    delta: bool
    mamba: bool
    attends: bool
    head_dim: int
    n_kv_heads: int
    latent: bool
    hidden_dim: int
    sparsity: float

    @property
    def recurs(self) -> bool:
        """Whether it keeps a matrix for each head as its state: a delta rule or a state space."""
        return self.delta or self.mamba


def layer_of(config: "BackboneConfig", index: int) -> Layer:
    """What is particular to layer `index`."""
    interval = config.no_rope_layer_interval
    kind = None if config.layer_types is None else config.layer_types[index]
    attends = kind not in ("conv", "linear_attention", "mamba")
    slides = config.sliding_window is not None and (kind is None or kind == "sliding_attention")
    has_rope = attends and (interval is None or (index + 1) % interval != 0)
    has_rope = has_rope and (slides or config.global_rope)
    kv_source, shares_kv = _shared_keys(config, index)
    kv_heads, head_dim = _kv_heads(config, slides)
    window = _attention_window(config, slides, has_rope)
    wide = kv_source is not None and config.double_wide_shared_ffn
    feed_forward = index not in config.no_feed_forward_layers
    rope = "local" if slides and config.local_rope_theta else "global"
    # Up to the first step of the scale all factors are 1.
    grows = config.attn_temperature_tuning and config.max_seq_len >= config.floor_scale
    return Layer(
        rope=rope if has_rope else "none",
        qk_norm=config.use_qk_norm and attends and (has_rope or config.qk_norm_without_rope),
        temperature=grows and attends and (config.attn_temperature_with_rope or not has_rope),
        attention_window=window,
        attention_sinks=config.attention_sinks if window and window[0] == "window" else 0,
        kv_source=kv_source,
        shares_kv=shares_kv,
        feed_forward=feed_forward,
        moe=feed_forward
        and config.num_experts > 0
        and index >= config.num_dense_layers
        and (index + 1) % config.interleave_moe_layer_step == 0,
        conv=kind == "conv",
        delta=kind == "linear_attention",
        mamba=kind in ("mamba", "hybrid"),
        attends=attends,
        head_dim=head_dim,
        n_kv_heads=kv_heads,
        latent=config.kv_lora_rank > 0,
        hidden_dim=config.hidden_dim * (2 if wide else 1),
        sparsity=config.activation_sparsity if index < config.num_sparse_layers else 0.0,
    )


def _kv_heads(config: "BackboneConfig", slides: bool) -> tuple[int, int]:
    """(number, width)"""
    if config.kv_lora_rank:
        return 1, config.kv_lora_rank + config.qk_rope_head_dim
    if slides:
        return config.n_kv_heads, config.head_dim
    return config.n_global_kv_heads or config.n_kv_heads, config.global_head_dim or config.head_dim


def _shared_keys(config: "BackboneConfig", index: int) -> tuple[int | None, bool]:
    """(the layer whose keys and values layer `index` reads, if any, whether others read its)"""
    first = config.n_layers - config.num_kv_shared_layers
    if first == config.n_layers:
        return None, False
    kinds = config.layer_types if config.kv_shared_by_type else None
    kind = kinds[index] if kinds else None
    before = [each for each in range(first) if not kinds or kinds[each] == kind]
    if index >= first:
        return before[-1], False
    return None, index == before[-1]


def _attention_window(
    config: "BackboneConfig", slides: bool, has_rope: bool
) -> tuple[Literal["window", "chunk"], int] | None:
    """Only what the context is long enough to notice."""
    if slides and config.sliding_window is not None and config.sliding_window < config.max_seq_len:
        return "window", config.sliding_window
    chunk = config.attention_chunk_size
    if has_rope and chunk is not None and chunk < config.max_seq_len:
        return "chunk", chunk
    return None
