"""The rotary embedding's parameters, from config.json's `rope_parameters`."""

import math
from collections.abc import Mapping
from typing import Any

from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.yarn import Yarn, attention_scale
from quatrain.errors import InputError

_WIDEST_HEAD = 1 << 16


def rope_params(fields: Fields, partial: bool = False) -> dict[str, Any]:
    """Fields of params.json, from `rope_parameters` (transformers 5) or from `rope_theta` and
    `rope_scaling`. `partial`: whether the family may rotate a part of each head.

    Raises `InputError` if the kind of scaling is not implemented, or the two differ.
    """
    stated = {
        name: scaled_rope(fields, scaling, partial)
        for name in ("rope_scaling", "rope_parameters")
        if (scaling := fields.object_of(name))
    }
    if not stated:
        return scaled_rope(fields, Fields({}, fields.source), partial)
    first, *others = stated.values()
    if any(other != first for other in others):
        raise InputError(
            f"{fields.source}: rope_scaling and rope_parameters specify different rotary "
            "embeddings; remove the wrong one"
        )
    return first


def partial_rope_params(fields: Fields, rotated: float) -> dict[str, Any]:
    """As `rope_params`, of a family that rotates the part `rotated` of each head where config.json
    states no other."""
    stated = fields.get("partial_rotary_factor")
    part = {"partial_rotary_factor": rotated if stated is None else stated}
    return rope_params(fields | part, partial=True)


def scaled_rope(fields: Fields, scaling: Fields, partial: bool = False) -> dict[str, Any]:
    """What the object `scaling` says, and `fields` around it where it does not."""
    by_layer = sorted(name for name in scaling if name.endswith("_attention"))
    if by_layer:
        raise InputError(
            f"{fields.source}: rope_parameters has {by_layer[0]}, a rotary embedding for some "
            "layers, which models of this model_type do not have"
        )
    stated = fields | _without_null(scaling)
    params = {
        "rope_theta": stated.number("rope_theta"),
        "partial_rotary_factor": _rotated_part(stated, partial),
    }
    kind = rope_type(scaling)
    if kind == "default":
        return params
    if kind == "linear":
        return params | {"rope_linear_factor": scaling.number("factor")}
    if kind == "llama3":
        return params | _llama3(fields, scaling)
    if kind in ("longrope", "su"):  # what Phi-3 called it at first
        return params | _longrope(fields, scaling)
    if kind == "yarn":
        return params | _yarn(fields, scaling, params)
    if kind == "dynamic":
        # Up to max_position_embeddings, beyond which nothing is exported, it is the default one.
        scaling.number("factor")
        return params
    expected = "'default', 'linear', 'llama3', 'longrope', 'yarn' or 'dynamic'"
    raise Fields({"rope_type": kind}, fields.source).refusal("rope_type", expected)


def rope_type(scaling: Mapping[str, Any]) -> Any:
    """The kind of scaling of a config.json's `rope_scaling`, under its present name or
    its older one, `type`; 'default' is none."""
    return scaling.get("rope_type") or scaling.get("type") or "default"


def _without_null(scaling: Fields) -> dict[str, Any]:
    return {name: value for name, value in scaling.items() if value is not None}


def _rotated_part(fields: Fields, partial: bool) -> float:
    part = fields.number_or_none("partial_rotary_factor") or 1.0
    if part > 1 or (part < 1 and not partial):
        expected = "at most 1" if partial else "1 in models of this model_type"
        raise fields.refusal("partial_rotary_factor", expected)
    return part


def _llama3(fields: Fields, scaling: Fields) -> dict[str, Any]:
    factor = scaling.number("factor")
    low, high = (scaling.number(f"{end}_freq_factor") for end in ("low", "high"))
    if high < low:
        expected = f"at least low_freq_factor, {low}; the two may have been exchanged"
        raise scaling.refusal("high_freq_factor", expected)
    return {
        "use_scaled_rope": True,
        "rope_scale_factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": _original_context(fields, scaling),
    }


def _longrope(fields: Fields, scaling: Fields) -> dict[str, Any]:
    """LongRoPE: if the tables' factor is not stated, sqrt(1 + ln(s) / ln(original context)) for a
    context s times as long (Ding et al., 2024, section 3.2)."""
    original = _original_context(fields, scaling)
    stretch = scaling.number_or_none("factor") or (
        fields.integer("max_position_embeddings") / original
    )
    factor = scaling.number_or_none("attention_factor")
    if factor is None:
        factor = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
    return {
        "rope_scaling_short_factor": scaling.numbers("short_factor"),
        "rope_scaling_long_factor": scaling.numbers("long_factor"),
        "rope_scaling_attention_factor": factor,
        "original_max_position_embeddings": original,
    }


def _yarn(fields: Fields, scaling: Fields, rope: dict[str, Any]) -> dict[str, Any]:
    """As transformers reads it: if no factor is stated, it is that of the longest context and that
    of pretraining."""
    longest = fields.integer("max_position_embeddings")
    original = _original_context(fields, scaling)
    factor = scaling.number_or_none("factor") or longest / original
    width = fields.head_width()
    if width > _WIDEST_HEAD:  # before a list of as many entries
        raise fields.refusal("head_dim", f"at most {_WIDEST_HEAD}")
    if rope["rope_theta"] <= 1:
        expected = "more than 1 for rope_type 'yarn'"
        raise Fields(rope, fields.source).refusal("rope_theta", expected)
    yarn = Yarn(
        rotated=int(width * rope["partial_rotary_factor"]),
        theta=rope["rope_theta"],
        factor=factor,
        original_context=original,
        beta_fast=scaling.number_or_none("beta_fast") or Yarn.beta_fast,
        beta_slow=scaling.number_or_none("beta_slow") or Yarn.beta_slow,
        truncate="truncate" not in scaling or scaling.flag("truncate"),
    )
    return yarn.params(_stated_attention_factor(scaling, factor))


def _stated_attention_factor(scaling: Fields, factor: float) -> float | None:
    """The factor of both tables, if the checkpoint states it: directly, or by two weights as in
    DeepSeek."""
    above, below = scaling.get("mscale"), scaling.get("mscale_all_dim")
    if scaling.get("attention_factor") is not None or not above or not below:
        return scaling.number_or_none("attention_factor")
    above, below = (scaling.number(name) for name in ("mscale", "mscale_all_dim"))
    return attention_scale(factor, above) / attention_scale(factor, below)


def _original_context(fields: Fields, scaling: Fields) -> int:
    """The context of pretraining, which is stated beside the scaling, in it, in both, or nowhere:
    then, as in transformers, it is the model's own."""
    name = "original_max_position_embeddings"
    stating = [one for one in (fields, scaling) if one.get(name) is not None]
    if not stating:
        return fields.integer("max_position_embeddings", least=2)
    stated = {one.integer(name, least=2) for one in stating}
    if len(stated) > 1:
        raise InputError(
            f"{fields.source}: {name} is {fields[name]} (or its default), but {scaling[name]} in "
            "the parameters of the rotary embedding; set both to the model's value"
        )
    return stated.pop()
