"""The rotary embedding's figures, as config.json's `rope_parameters` gives them."""

import math
from typing import Any

from quatrain.checkpoint.families.family import Fields, number
from quatrain.errors import InputError


def rope_params(fields: Fields, source: str) -> dict[str, Any]:
    """Fields of params.json, from `rope_parameters` (transformers 5) or from `rope_theta` and
    `rope_scaling`. Raises `InputError` where the kind of scaling is not implemented."""
    scaling = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    if not isinstance(scaling, dict):
        raise InputError(f"{source}: rope_scaling is {scaling!r}, expected an object or null")
    partial = scaling.get("partial_rotary_factor") or fields.get("partial_rotary_factor") or 1.0
    params = {
        "rope_theta": scaling.get("rope_theta", fields.get("rope_theta", 10000.0)),
        "partial_rotary_factor": partial,
    }
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind == "default":
        return params
    if kind == "linear":
        return params | {"rope_linear_factor": number(scaling, "factor", source)}
    if kind == "llama3":
        return params | _llama3(scaling, source)
    if kind == "longrope":
        return params | _longrope(fields, scaling, source)
    raise InputError(
        f"{source}: rotary embedding {scaling!r} is not implemented, "
        "expected rope_type 'default', 'linear', 'llama3' or 'longrope'"
    )


def _llama3(scaling: Fields, source: str) -> dict[str, Any]:
    return {
        "use_scaled_rope": True,
        "rope_scale_factor": number(scaling, "factor", source),
        "low_freq_factor": number(scaling, "low_freq_factor", source),
        "high_freq_factor": number(scaling, "high_freq_factor", source),
        "original_max_position_embeddings": number(
            scaling, "original_max_position_embeddings", source
        ),
    }


def _longrope(fields: Fields, scaling: Fields, source: str) -> dict[str, Any]:
    """LongRoPE: where the tables' factor is not stated, sqrt(1 + ln(s) / ln(original context))
    for a context s times as long (Ding et al., 2024, section 3.2)."""
    original = scaling.get("original_max_position_embeddings") or number(
        fields, "original_max_position_embeddings", source
    )
    stretch = scaling.get("factor") or (
        number(fields, "max_position_embeddings", source) / original
    )
    factor = scaling.get("attention_factor")
    if factor is None:
        factor = math.sqrt(1 + math.log(stretch) / math.log(original)) if stretch > 1 else 1.0
    return {
        "rope_scaling_short_factor": scaling.get("short_factor"),
        "rope_scaling_long_factor": scaling.get("long_factor"),
        "rope_scaling_attention_factor": factor,
        "original_max_position_embeddings": original,
    }
