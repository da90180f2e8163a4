"""Granite 3 dense: four multipliers (maximal update parametrization)."""

from typing import Any

from quatrain.checkpoint.families.family import Family
from quatrain.checkpoint.hugging_face.fields import Fields, number

_DEFAULTS = {
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "embedding_multiplier": 1.0,
    "attention_multiplier": 1.0,
    "residual_multiplier": 1.0,
    "logits_scaling": 1.0,
}


def _params(fields: Fields, source: str) -> dict[str, Any]:
    return {
        "embedding_scale_factor": number(fields, "embedding_multiplier", source),
        "attention_multiplier": number(fields, "attention_multiplier", source),
        "residual_multiplier": number(fields, "residual_multiplier", source),
        "logits_scaling": number(fields, "logits_scaling", source),
    }


GRANITE = Family(_DEFAULTS, _params)
