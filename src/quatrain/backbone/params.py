"""A `params.json`, checked, as the shape of a backbone.

Field names are those of Meta's `params.json` and of ExecuTorch's `ModelArgs`, so one file serves
Quatrain and ExecuTorch's own exporter.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from quatrain.backbone.config import ATTENTION_FACTOR, BackboneConfig
from quatrain.backbone.param_types import typed_value
from quatrain.errors import InputError

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
    if "rope_scaling_long_factor" in values and ATTENTION_FACTOR not in values:
        values[ATTENTION_FACTOR] = _attention_factor(params, source)
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
            f"{source}: {ATTENTION_FACTOR} is missing; state it (1.0 leaves the rotary tables as "
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
    if "conv" in (config.layer_types or ()):
        yield from _of_convolutions(config)
    if config.num_kv_shared_layers >= config.n_layers:
        yield f"num_kv_shared_layers {config.num_kv_shared_layers} leaves no layer with keys"
    if config.use_ffn_learnable_scales and config.post_ffn_norm:
        yield "use_ffn_learnable_scales and post_ffn_norm are two norms in one place"
    if not config.pre_norm and not (config.post_attention_norm and config.post_ffn_norm):
        yield "pre_norm is false, so post_attention_norm and post_ffn_norm must be true"
    if config.parallel_residual and (not config.pre_norm or _follows_branches(config)):
        yield "parallel_residual adds what attention and feed-forward give, with no norm or gate"
    if config.norm_type == "layer" and _follows_branches(config):
        yield "norm_type 'layer' is for norms before attention and feed-forward"
    if config.norm_bias and config.norm_type != "layer":
        yield "norm_bias is for norm_type 'layer'"
    if config.qk_norm_whole and not config.qk_norm_before_rope:
        yield "qk_norm_whole is a norm before the rotation, so it needs qk_norm_before_rope"
    if not config.feed_forward_gate and config.num_experts:
        yield "feed_forward_gate is false, and experts have one"
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


def _of_convolutions(config: BackboneConfig) -> Iterator[str]:
    if config.conv_L_cache < 2:
        yield f"conv_L_cache {config.conv_L_cache} reads no other token, expected 2 or more"
    if config.num_kv_shared_layers:
        yield "num_kv_shared_layers is for layers that all attend, and layer_types has 'conv'"


def _follows_branches(config: BackboneConfig) -> bool:
    """Whether anything but a factor is between a branch and the residual stream."""
    return (
        config.post_attention_norm
        or config.post_ffn_norm
        or config.use_ffn_learnable_scales
        or config.use_residual_gate
    )


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
