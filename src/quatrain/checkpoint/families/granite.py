"""Granite 3 dense: four multipliers (maximal update parametrization)."""

from dataclasses import replace

from quatrain.checkpoint.families.family import (
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
    sizes,
)
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields


def _params(fields: Fields) -> Params:
    return {
        "embedding_scale_factor": fields.number("embedding_multiplier"),
        "attention_multiplier": fields.number("attention_multiplier"),
        "residual_multiplier": fields.number("residual_multiplier"),
        "logits_scaling": fields.number("logits_scaling"),
    }


def gguf_params(metadata: GgufMetadata) -> Params:
    """As `GgufReading.params`: Granite's multipliers, by llama.cpp's keys."""
    return {
        "embedding_scale_factor": metadata.decimal("embedding_scale", 1.0),
        "attention_multiplier": metadata.decimal("attention.scale", 0.0) or None,
        "residual_multiplier": metadata.decimal("residual_scale", 1.0),
        "logits_scaling": metadata.decimal("logit_scale"),
    }


GRANITE = Family(
    hugging_face=HuggingFaceReading(
        model_type="granite",
        defaults={
            "num_attention_heads": 32,
            "vocab_size": 32000,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "mlp_bias": False,
            "rope_theta": 10000.0,
            "embedding_multiplier": 1.0,
            "attention_multiplier": 1.0,
            "residual_multiplier": 1.0,
            "logits_scaling": 1.0,
        },
        sizes=sizes(4096, 11008, 32),
        params=_params,
    ),
    gguf=GgufReading("granite", half_split=False, params=gguf_params),
)
# The text models of Granite Docling, and of Granite 4 Vision.
GRANITE_DOCLING = Family(
    hugging_face=HuggingFaceReading(
        model_type="granite_docling_text",
        defaults={
            **GRANITE.hugging_face.defaults,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "vocab_size": 133800,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "embedding_multiplier": 12.0,
            "attention_multiplier": 0.015625,
            "residual_multiplier": 0.263,
            "logits_scaling": 4.0,
        },
        sizes=sizes(1024, 2048, 28),
        params=_params,
        tied=True,
    ),
)
GRANITE4_VISION = Family(replace(GRANITE.hugging_face, model_type="granite4_vision_text"))
# Of the mixtures, which have no biases in their feed-forwards.
MIXTURE_DEFAULTS = {
    name: value for name, value in GRANITE.hugging_face.defaults.items() if name != "mlp_bias"
}
