"""The rotary embedding's figures, as config.json's `rope_parameters` gives them."""

import math
from typing import Any

from quatrain.checkpoint.hugging_face.fields import (
    Fields,
    flag,
    head_width,
    integer,
    number,
    number_or_none,
    numbers,
    object_of,
    refusal,
)
from quatrain.checkpoint.nth_layers import FULL, SLIDING
from quatrain.checkpoint.yarn import Yarn, attention_scale
from quatrain.errors import InputError

_WIDEST_HEAD = 1 << 16


def rope_params(fields: Fields, source: str, partial: bool = False) -> dict[str, Any]:
    """Fields of params.json, from `rope_parameters` (transformers 5) or from `rope_theta` and
    `rope_scaling`. `partial`: whether the family may rotate a part of each head.

    Raises `InputError` where the kind of scaling is not implemented, or the two differ.
    """
    stated = {
        name: scaled_rope(fields, scaling, source, partial)
        for name in ("rope_scaling", "rope_parameters")
        if (scaling := object_of(fields, name, source))
    }
    if not stated:
        return scaled_rope(fields, {}, source, partial)
    first, *others = stated.values()
    if any(other != first for other in others):
        raise InputError(
            f"{source}: rope_scaling and rope_parameters ask for different rotary embeddings; "
            "remove the one that is not the model's"
        )
    return first


def partial_rope_params(fields: Fields, source: str, rotated: float) -> dict[str, Any]:
    """As `rope_params`, of a family that rotates the part `rotated` of each head where config.json
    states no other."""
    stated = fields.get("partial_rotary_factor")
    part = {"partial_rotary_factor": rotated if stated is None else stated}
    return rope_params(fields | part, source, partial=True)


def scaled_rope(
    fields: Fields, scaling: Fields, source: str, partial: bool = False
) -> dict[str, Any]:
    """What the object `scaling` says, and `fields` around it where it does not."""
    by_layer = sorted(name for name in scaling if name.endswith("_attention"))
    if by_layer:
        raise InputError(
            f"{source}: rope_parameters has {by_layer[0]}, a rotary embedding for some layers, "
            "which models of this model_type do not have"
        )
    params = {
        "rope_theta": number(fields | _without_null(scaling), "rope_theta", source),
        "partial_rotary_factor": _rotated_part(fields | _without_null(scaling), source, partial),
    }
    kind = rope_type(scaling)
    if kind == "default":
        return params
    if kind == "linear":
        return params | {"rope_linear_factor": number(scaling, "factor", source)}
    if kind == "llama3":
        return params | _llama3(fields, scaling, source)
    if kind in ("longrope", "su"):  # what Phi-3 called it at first
        return params | _longrope(fields, scaling, source)
    if kind == "yarn":
        return params | _yarn(fields, scaling, params, source)
    if kind == "dynamic":
        # Up to max_position_embeddings, beyond which nothing is exported, it is the default one.
        number(scaling, "factor", source)
        return params
    expected = "'default', 'linear', 'llama3', 'longrope', 'yarn' or 'dynamic'"
    raise refusal({"rope_type": kind}, "rope_type", expected, source)


def proportional_rope(fields: Fields, default: Fields, source: str) -> dict[str, Any]:
    """What `rope_parameters`, or the `default` in their place, say of a family whose layers without
    a window may turn a part of all planes only, as fast as they do where all turn."""
    by_layer = object_of(fields, "rope_parameters", source) or default
    full, sliding = (object_of(by_layer, name, source) for name in (FULL, SLIDING))
    if by_layer.keys() != default.keys() or rope_type(sliding) != "default":
        expected = f"'{FULL}' and '{SLIDING}', the second of rope_type 'default'"
        raise refusal(fields, "rope_parameters", expected, source)
    kind = rope_type(full)
    if kind not in ("default", "proportional") or full.get("factor") not in (None, 1, 1.0):
        raise refusal(by_layer, FULL, "rope_type 'proportional' or 'default', no factor", source)
    planes = number_or_none(full, "partial_rotary_factor", source) or 1.0
    if planes > 1:
        raise refusal(full, "partial_rotary_factor", "at most 1", source)
    return {
        "rope_theta": number(full, "rope_theta", source),
        "local_rope_theta": number(sliding, "rope_theta", source),
        "global_rotary_planes": planes if kind == "proportional" else 1.0,
    }


def rope_type(scaling: Fields) -> Any:
    return scaling.get("rope_type") or scaling.get("type") or "default"


def _without_null(scaling: Fields) -> Fields:
    return {name: value for name, value in scaling.items() if value is not None}


def _rotated_part(fields: Fields, source: str, partial: bool) -> float:
    part = number_or_none(fields, "partial_rotary_factor", source) or 1.0
    if part > 1 or (part < 1 and not partial):
        expected = "at most 1" if partial else "1 in models of this model_type"
        raise refusal(fields, "partial_rotary_factor", expected, source)
    return part


def _llama3(fields: Fields, scaling: Fields, source: str) -> dict[str, Any]:
    factor = number(scaling, "factor", source)
    low, high = (number(scaling, f"{end}_freq_factor", source) for end in ("low", "high"))
    if high < low:
        expected = f"at least low_freq_factor, {low}; the two may have been exchanged"
        raise refusal(scaling, "high_freq_factor", expected, source)
    return {
        "use_scaled_rope": True,
        "rope_scale_factor": factor,
        "low_freq_factor": low,
        "high_freq_factor": high,
        "original_max_position_embeddings": _original_context(fields, scaling, source),
    }


def _longrope(fields: Fields, scaling: Fields, source: str) -> dict[str, Any]:
    """LongRoPE: where the tables' factor is not stated, sqrt(1 + ln(s) / ln(original context))
    for a context s times as long (Ding et al., 2024, section 3.2)."""
    original = _original_context(fields, scaling, source)
    stretch = number_or_none(scaling, "factor", source) or (
        integer(fields, "max_position_embeddings", source) / original
    )
    factor = number_or_none(scaling, "attention_factor", source)
    if factor is None:
        factor = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
    return {
        "rope_scaling_short_factor": numbers(scaling, "short_factor", source),
        "rope_scaling_long_factor": numbers(scaling, "long_factor", source),
        "rope_scaling_attention_factor": factor,
        "original_max_position_embeddings": original,
    }


def _yarn(fields: Fields, scaling: Fields, rope: dict[str, Any], source: str) -> dict[str, Any]:
    """As transformers reads it: where no factor is stated, it is that of the longest context and
    that of pretraining."""
    longest = integer(fields, "max_position_embeddings", source)
    original = _original_context(fields, scaling, source)
    factor = number_or_none(scaling, "factor", source) or longest / original
    width = head_width(fields, source)
    if width > _WIDEST_HEAD:  # before a list of as many entries
        raise refusal(fields, "head_dim", f"at most {_WIDEST_HEAD}", source)
    if rope["rope_theta"] <= 1:
        raise refusal(rope, "rope_theta", "more than 1 for rope_type 'yarn'", source)
    yarn = Yarn(
        rotated=int(width * rope["partial_rotary_factor"]),
        theta=rope["rope_theta"],
        factor=factor,
        original_context=original,
        beta_fast=number_or_none(scaling, "beta_fast", source) or Yarn.beta_fast,
        beta_slow=number_or_none(scaling, "beta_slow", source) or Yarn.beta_slow,
        truncate=flag({"truncate": True} | scaling, "truncate", source),
    )
    return yarn.params(_stated_attention_factor(scaling, factor, source))


def _stated_attention_factor(scaling: Fields, factor: float, source: str) -> float | None:
    """What both tables are multiplied by, where the checkpoint says so: as it is, or as DeepSeek
    does, by two weights."""
    above, below = scaling.get("mscale"), scaling.get("mscale_all_dim")
    if scaling.get("attention_factor") is not None or not above or not below:
        return number_or_none(scaling, "attention_factor", source)
    above, below = (number(scaling, name, source) for name in ("mscale", "mscale_all_dim"))
    return attention_scale(factor, above) / attention_scale(factor, below)


def _original_context(fields: Fields, scaling: Fields, source: str) -> int:
    """The context of pretraining, which is stated beside the scaling, in it, in both, or nowhere:
    then, as in transformers, it is the model's own."""
    name = "original_max_position_embeddings"
    stating = [one for one in (fields, scaling) if one.get(name) is not None]
    if not stating:
        return integer(fields, "max_position_embeddings", source, least=2)
    stated = {integer(one, name, source, least=2) for one in stating}
    if len(stated) > 1:
        raise InputError(
            f"{source}: {name} is {fields[name]} (as stated, or as it is where nothing is) and "
            f"{scaling[name]} in the rotary embedding's scaling; state the model's in both"
        )
    return stated.pop()
