"""Granite 3 dense: four multipliers (maximal update parametrization)."""

from typing import Any

from quatrain.checkpoint.families.family import Family, Fields, number


def _params(fields: Fields, source: str) -> dict[str, Any]:
    return {
        "embedding_scale_factor": number(fields, "embedding_multiplier", source),
        "attention_multiplier": number(fields, "attention_multiplier", source),
        "residual_multiplier": number(fields, "residual_multiplier", source),
        "logits_scaling": number(fields, "logits_scaling", source),
    }


GRANITE = Family(params=_params)
