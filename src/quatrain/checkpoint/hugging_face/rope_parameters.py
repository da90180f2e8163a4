"""The rotary embedding's figures, as config.json's `rope_parameters` gives them."""

import math
from typing import Any

from quatrain.checkpoint.hugging_face.fields import (
    Fields,
    integer,
    number,
    number_or_none,
    numbers,
    object_of,
    refusal,
)
from quatrain.errors import InputError


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
    if kind == "longrope":
        return params | _longrope(fields, scaling, source)
    raise refusal(
        {"rope_type": kind}, "rope_type", "'default', 'linear', 'llama3' or 'longrope'", source
    )


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
    return {
        "use_scaled_rope": True,
        "rope_scale_factor": number(scaling, "factor", source),
        "low_freq_factor": number(scaling, "low_freq_factor", source),
        "high_freq_factor": number(scaling, "high_freq_factor", source),
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


def _original_context(fields: Fields, scaling: Fields, source: str) -> int:
    """The context of pretraining, which is stated beside the scaling, in it, or in both."""
    name = "original_max_position_embeddings"
    stating = [one for one in (fields, scaling) if one.get(name) is not None]
    stated = {integer(one, name, source, least=2) for one in stating or [scaling]}
    if len(stated) > 1:
        raise InputError(
            f"{source}: {name} is {fields[name]} (as stated, or as it is where nothing is) and "
            f"{scaling[name]} in the rotary embedding's scaling; state the model's in both"
        )
    return stated.pop()
