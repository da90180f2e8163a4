"""The shape of a backbone: what `params.json` says, checked.

Field names are those of Meta's `params.json` and of ExecuTorch's `ModelArgs`, so one file
serves Quatrain and ExecuTorch's own exporter.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from quatrain.backbone.param_types import typed_value
from quatrain.errors import InputError

LayerType = Literal["full_attention", "sliding_attention"]


@dataclass(frozen=True)
class Layer:
    """What one layer of a backbone has or lacks that another may not.

    `reach`: of the positions up to a token's own, which it attends to: all (None), those less
    than `size` back ("window", size), or those in its own block of `size` ("chunk", size).
    `donor`: the layer whose keys and values it reads instead of making its own; `lends`: whether
    others read its.
    """

    rope: Literal["global", "local", "none"]
    qk_norm: bool
    temperature: bool
    attention_window: tuple[Literal["window", "chunk"], int] | None
    kv_source: int | None
    shares_kv: bool
    moe: bool


@dataclass(frozen=True)
class BackboneConfig:
    """A Llama-family decoder. Sizes are element counts; the defaults are a plain Llama's."""

    dim: int
    n_layers: int
    n_heads: int
    vocab_size: int
    n_kv_heads: int
    head_dim: int
    hidden_dim: int
    norm_eps: float = 1e-5
    max_seq_len: int = 2048

    # Rotary embedding: `use_hf_rope=False` rotates neighbouring pairs (Meta's layout, Q/K rows
    # in that order), `True` rotates halves (Hugging Face's layout), of the first
    # `partial_rotary_factor` of each head.
    rope_theta: float = 10000.0
    use_hf_rope: bool = False
    partial_rotary_factor: float = 1.0
    # Llama 3.1's frequency scaling.
    use_scaled_rope: bool = False
    rope_scale_factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192
    # LongRoPE: a divisor per plane, and the factor on both tables, which a params.json states
    # or leaves to its max_position_embeddings.
    rope_scaling_short_factor: tuple[float, ...] | None = None
    rope_scaling_long_factor: tuple[float, ...] | None = None
    rope_scaling_attention_factor: float = 1.0
    rope_linear_factor: float = 1.0  # positions count as if divided by it
    local_rope_theta: float | None = None  # of sliding-window layers, unscaled
    no_rope_layer_interval: int | None = None  # every such layer goes without

    # Attention.
    attention_qkv_bias: bool = False
    use_qk_norm: bool = False
    qk_norm_before_rope: bool = True  # a params.json that leaves it out means False
    qk_norm_affine: bool = True
    qk_norm_without_rope: bool = True  # also where a layer has no rotary embedding
    scale_query_by: float = 1.0  # after its norm
    attention_multiplier: float | None = None  # in place of 1 / sqrt(head_dim)
    attn_logit_softcapping: float | None = None
    use_attn_o_norm: bool = False
    use_attn_o_gate: bool = False
    num_kv_shared_layers: int = 0
    # `sliding_window` is that of the layers that `layer_types` calls so (all, if it is absent).
    sliding_window: int | None = None
    layer_types: tuple[LayerType, ...] | None = None
    # Llama 4: layers with rotary embedding see their own chunk only; the queries of those
    # without grow with the position.
    attention_chunk_size: int | None = None
    attn_temperature_tuning: bool = False
    floor_scale: int = 8192
    attn_scale: float = 0.1

    # Feed-forward and residual stream.
    act_fn: Literal["silu", "gelu", "gelu_approx"] = "silu"
    use_spin_quant: bool = False  # a Hadamard rotation before each w2
    post_attention_norm: bool = False
    post_ffn_norm: bool = False
    use_ffn_learnable_scales: bool = False
    use_residual_gate: bool = False
    residual_multiplier: float = 1.0
    # Mixture of experts in every `interleave_moe_layer_step`-th layer, if there are experts.
    num_experts: int = 0
    num_activated_experts: int = 1
    interleave_moe_layer_step: int = 1
    moe_hidden_dim: int | None = None  # hidden_dim unless given, the shared expert's too

    # Embedding and output. A pruning map is from row to token id.
    apply_embedding: bool = True
    apply_output: bool = True
    normalize_tok_embeddings: bool = False
    embedding_scale_factor: float = 1.0
    output_linear_intermediate_dim: int = 0
    output_soft_cap_temp: float | None = None
    logits_scaling: float = 1.0  # what logits are divided by
    input_prune_map: dict[int, int] | None = None
    output_prune_map: dict[int, int] | None = None

    @property
    def queries_per_kv_head(self) -> int:
        return self.n_heads // self.n_kv_heads

    @property
    def expert_dim(self) -> int:
        """The hidden width of an expert."""
        return self.moe_hidden_dim or self.hidden_dim

    @property
    def longrope(self) -> Literal["short", "long"] | None:
        """The divisors that rotations have, of LongRoPE's (Ding et al., 2024) for contexts up to
        that of pretraining and for longer ones; one program serves one context."""
        if self.rope_scaling_long_factor is None:
            return None
        return "long" if self.max_seq_len > self.original_max_position_embeddings else "short"

    def layer(self, index: int) -> Layer:
        """What is particular to layer `index`."""
        interval = self.no_rope_layer_interval
        has_rope = interval is None or (index + 1) % interval != 0
        slides = self.sliding_window is not None and (
            self.layer_types is None or self.layer_types[index] == "sliding_attention"
        )
        first_shared = self.n_layers - self.num_kv_shared_layers
        return Layer(
            rope="none"
            if not has_rope
            else "local"
            if slides and self.local_rope_theta
            else "global",
            qk_norm=self.use_qk_norm and (has_rope or self.qk_norm_without_rope),
            # Up to the first step of the scale all factors are 1.
            temperature=self.attn_temperature_tuning
            and not has_rope
            and self.max_seq_len >= self.floor_scale,
            attention_window=self._attention_window(slides, has_rope),
            kv_source=first_shared - 1 if index >= first_shared else None,
            shares_kv=index == first_shared - 1 and self.num_kv_shared_layers > 0,
            moe=self.num_experts > 0 and (index + 1) % self.interleave_moe_layer_step == 0,
        )

    def _attention_window(
        self, slides: bool, has_rope: bool
    ) -> tuple[Literal["window", "chunk"], int] | None:
        """Only what the context is long enough to notice."""
        if slides and self.sliding_window is not None and self.sliding_window < self.max_seq_len:
            return "window", self.sliding_window
        chunk = self.attention_chunk_size
        if has_rope and chunk is not None and chunk < self.max_seq_len:
            return "chunk", chunk
        return None

    def to_params(self) -> dict[str, Any]:
        """The fields as a JSON-ready mapping: those every backbone has, and what differs from a
        plain Llama."""
        fields = {field.name: field for field in dataclasses.fields(self)}
        values = dataclasses.asdict(self)
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if name in _ALWAYS_WRITTEN
            or value != fields[name].default
            # A LongRoPE without it has a factor that follows from its contexts.
            or (name == _ATTENTION_FACTOR and self.rope_scaling_long_factor is not None)
        }


_ALWAYS_WRITTEN = {
    "dim", "n_layers", "n_heads", "vocab_size", "n_kv_heads", "head_dim", "hidden_dim", "norm_eps",
    "rope_theta", "use_hf_rope", "use_scaled_rope", "rope_scale_factor", "low_freq_factor",
    "high_freq_factor", "original_max_position_embeddings", "attention_qkv_bias", "use_qk_norm",
    "qk_norm_before_rope", "max_seq_len",
}  # fmt: skip

_ATTENTION_FACTOR = "rope_scaling_attention_factor"

# Other names that the same fields have in ExecuTorch's ModelArgs.
_ALIASES = {
    "rope_freq_base": "rope_theta",
    "final_logit_softcapping": "output_soft_cap_temp",
}

# What a params.json may also hold: read by others, or by other parts of Quatrain.
_FIELDS_READ_ELSEWHERE = {
    "bos_idx",
    "eos_idx",
    "quantization_args",
    "ffn_dim_multiplier",
    "multiple_of",
    "max_batch_size",
    "max_context_len",
    "max_position_embeddings",
    "model_parallel_size",
    "_comment",
}

_REQUIRED = ("dim", "n_layers", "n_heads", "vocab_size")


def config_from_params(params: dict[str, Any], source: str) -> BackboneConfig:
    """Read a `params.json` mapping. `source` names the file in errors.

    Raises `InputError` where a field is missing, of the wrong type, not positive,
    inconsistent with another, or not one this backbone implements.
    """
    params = _by_one_name(params, source)
    known = {field.name: field for field in dataclasses.fields(BackboneConfig)}
    unknown = sorted(set(params) - set(known) - _FIELDS_READ_ELSEWHERE)
    if unknown:
        raise InputError(
            f"{source}: {', '.join(unknown)} is not a field that this backbone implements; "
            f"known fields are {', '.join(sorted(known))}. "
            "Remove it if the model does not depend on it."
        )
    for name in _REQUIRED:
        if params.get(name) is None:
            raise InputError(f"{source}: the field '{name}' is missing; a params.json needs it")
    values = {
        name: typed_value(name, params[name], field.type, source, zero=field.default == 0)
        for name, field in known.items()
        if params.get(name) is not None
    }
    _check_read_elsewhere(params, source)
    values.setdefault("n_kv_heads", values["n_heads"])
    if "head_dim" not in values:
        if values["dim"] % values["n_heads"]:
            raise InputError(
                f"{source}: dim {values['dim']} is not a multiple of n_heads {values['n_heads']}; "
                "state head_dim if that is meant"
            )
        values["head_dim"] = values["dim"] // values["n_heads"]
    if "hidden_dim" not in values:
        values["hidden_dim"] = _hidden_dim(params, values["dim"], source)
    if "rope_scaling_long_factor" in values and _ATTENTION_FACTOR not in values:
        values[_ATTENTION_FACTOR] = _attention_factor(params, source)
    config = BackboneConfig(**values)
    for problem in _contradictions(config):
        raise InputError(f"{source}: {problem}")
    return config


def _by_one_name(params: dict[str, Any], source: str) -> dict[str, Any]:
    """`params` without aliases. Raises `InputError` where two names of a field disagree."""
    named = {name: value for name, value in params.items() if name not in _ALIASES}
    for alias, name in _ALIASES.items():
        value = params.get(alias)
        if value is None:
            continue
        if named.get(name) not in (None, value):
            raise InputError(
                f"{source}: {alias} is {value!r} and {name} is {named[name]!r}, "
                "two names of one field; remove one of them"
            )
        named[name] = value
    return named


def _check_read_elsewhere(params: dict[str, Any], source: str) -> None:
    """Raise `InputError` where a field that others read is not what they take it for."""
    end = tuple[int, ...] if isinstance(params.get("eos_idx"), list) else int
    for name, kind in (
        ("bos_idx", int),
        ("eos_idx", end),
        ("max_context_len", int),
        ("max_position_embeddings", int),
    ):
        if params.get(name) is not None:
            typed_value(name, params[name], kind, source, zero=name.endswith("_idx"))


def _hidden_dim(params: dict[str, Any], dim: int, source: str) -> int:
    """SwiGLU's hidden width where params.json does not state it: Meta's rule, 2/3 of 4 dim
    times the multiplier, rounded up to a multiple of `multiple_of` (256 unless stated)."""
    stated = {"ffn_dim_multiplier": 1.0, "multiple_of": 256}
    for name, default in stated.items():
        if params.get(name) is not None:
            stated[name] = typed_value(name, params[name], type(default), source)
    hidden = stated["ffn_dim_multiplier"] * int(2 * (4 * dim) / 3)
    if not math.isfinite(hidden):
        raise InputError(
            f"{source}: ffn_dim_multiplier is {stated['ffn_dim_multiplier']!r}, which no model has"
        )
    multiple = int(stated["multiple_of"])
    return -(-int(hidden) // multiple) * multiple


def _attention_factor(params: dict[str, Any], source: str) -> float:
    """LongRoPE's factor where params.json does not state it, as ExecuTorch has it:
    sqrt(1 + ln(s) / ln(original context)) for a context s times as long."""
    longest = params.get("max_position_embeddings")
    original = params.get("original_max_position_embeddings")
    if longest is None or original is None or original < 2:
        raise InputError(
            f"{source}: {_ATTENTION_FACTOR} is missing; state it (1.0 leaves the rotary tables as "
            "they are), or max_position_embeddings and original_max_position_embeddings, "
            f"from which it follows (they are {longest!r} and {original!r})"
        )
    return math.sqrt(1 + math.log(max(longest / original, 1.0)) / math.log(original))


def _contradictions(config: BackboneConfig) -> Iterator[str]:
    """Each pair of fields that do not go together, as a sentence."""
    if config.n_heads % config.n_kv_heads:
        yield f"n_heads {config.n_heads} is not a multiple of n_kv_heads {config.n_kv_heads}"
    if config.head_dim % 2:
        yield f"head_dim {config.head_dim} is odd; rotary embedding needs even"
    if config.partial_rotary_factor > 1:
        yield f"partial_rotary_factor is {config.partial_rotary_factor}, expected at most 1"
    rotated = int(config.head_dim * config.partial_rotary_factor)
    if not rotated or rotated % 2:
        yield f"partial_rotary_factor {config.partial_rotary_factor} rotates {rotated} channels"
    if rotated < config.head_dim and not config.use_hf_rope:
        yield "partial_rotary_factor is for use_hf_rope"
    for name in ("short", "long"):
        factors = getattr(config, f"rope_scaling_{name}_factor")
        if factors is not None and len(factors) != rotated // 2:
            yield f"rope_scaling_{name}_factor has {len(factors)} figures, expected {rotated // 2}"
    if (config.rope_scaling_short_factor is None) != (config.rope_scaling_long_factor is None):
        yield "rope_scaling_short_factor and rope_scaling_long_factor belong together"
    if config.scale_query_by != 1.0 and not config.use_qk_norm:
        yield "scale_query_by scales normed queries, so it needs use_qk_norm"
    if config.layer_types is not None and len(config.layer_types) != config.n_layers:
        yield f"layer_types has {len(config.layer_types)} entries, n_layers is {config.n_layers}"
    if config.num_kv_shared_layers >= config.n_layers:
        yield f"num_kv_shared_layers {config.num_kv_shared_layers} leaves no layer with keys"
    if config.use_ffn_learnable_scales and config.post_ffn_norm:
        yield "use_ffn_learnable_scales and post_ffn_norm are two norms in one place"
    if config.use_residual_gate and config.post_attention_norm:
        yield "use_residual_gate and post_attention_norm are two norms in one place"
    if config.num_activated_experts > max(config.num_experts, 1):
        yield f"num_activated_experts {config.num_activated_experts} of {config.num_experts}"
    for name in ("input_prune_map", "output_prune_map"):
        tokens = getattr(config, name)
        if tokens is not None and max(tokens.values()) >= config.vocab_size:
            yield f"{name} names token {max(tokens.values())}, vocab_size is {config.vocab_size}"
        if tokens is not None and len(tokens) == config.vocab_size and not _is_identity(tokens):
            # Whether a table of so many rows is in that order already, nothing would tell.
            yield f"{name} has all of {config.vocab_size} tokens in another order than their ids"
    yield from _unlike_kv_source(config)


def _is_identity(tokens: dict[int, int]) -> bool:
    return all(row == token for row, token in tokens.items())


def _unlike_kv_source(config: BackboneConfig) -> Iterator[str]:
    """Layers that read another's keys, and attend to other positions or rotate otherwise."""
    kv_source = config.n_layers - config.num_kv_shared_layers - 1
    if kv_source == config.n_layers - 1:
        return
    kinds = config.layer_types
    if config.sliding_window is not None and kinds is not None:
        for index in range(kv_source + 1, config.n_layers):
            if kinds[index] != kinds[kv_source]:
                yield (
                    f"num_kv_shared_layers {config.num_kv_shared_layers} lets layer {index}, of "
                    f"{kinds[index]}, read the keys of layer {kv_source}, of {kinds[kv_source]}; "
                    "expected layers of one kind"
                )
    interval = config.no_rope_layer_interval
    if config.attention_chunk_size is not None and interval is not None:
        without = config.n_layers // interval - kv_source // interval
        if 0 < without < config.n_layers - kv_source:
            yield (
                f"num_kv_shared_layers {config.num_kv_shared_layers} lets layers with and without "
                f"rotary embedding (no_rope_layer_interval {interval}) read the same keys, which "
                "attention_chunk_size limits for one kind alone"
            )
