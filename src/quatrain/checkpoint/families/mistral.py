"""Mistral: every layer sees the last `sliding_window` tokens only. Ministral: some do."""

from quatrain.checkpoint.families.family import Family, HuggingFaceReading, Params
from quatrain.checkpoint.hugging_face.fields import Fields, layer_count
from quatrain.checkpoint.hugging_face.layer_types import window_of_all, window_where

_DEFAULTS = {
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
}


def _ministral(fields: Fields, source: str) -> Params:
    slides = fields.get("sliding_window") is not None
    return window_where(fields, [slides] * layer_count(fields, source), source)


# A GGUF file of either calls it a llama, and is read as such.
MISTRAL = Family(HuggingFaceReading("mistral", _DEFAULTS, params=window_of_all))
MINISTRAL = Family(HuggingFaceReading("ministral", _DEFAULTS, params=_ministral))
