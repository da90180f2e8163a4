"""Llama 2, 3, 3.1, 3.2 and SmolLM2: what all others are told apart from."""

from typing import Any

from quatrain.checkpoint.families.family import Family
from quatrain.checkpoint.hugging_face.fields import Fields, flag
from quatrain.errors import InputError

_DEFAULTS = {
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}


def _params(fields: Fields, source: str) -> dict[str, Any]:
    if flag(fields, "use_sliding_window", source) and fields.get("sliding_window") is not None:
        raise InputError(
            f"{source}: sliding_window is {fields['sliding_window']}, which no Llama has; "
            "its model_type may be wrong"
        )
    return {}


LLAMA = Family(_DEFAULTS, _params)
