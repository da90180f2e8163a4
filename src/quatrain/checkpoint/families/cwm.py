"""Code World Model (Meta, 2025): a Llama in which three of four layers have a sliding window."""

from functools import partial

from quatrain.checkpoint.families.family import NO_BIASES, Family, HuggingFaceReading, Params
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import window_where
from quatrain.checkpoint.hugging_face.rope.default_rope import rope_params_or

_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 1000000.0,
    "factor": 16.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def _params(fields: Fields) -> Params:
    slides = [index % 4 != 0 for index in range(fields.layer_count())]
    return window_where(fields, slides)


CWM = Family(
    hugging_face=HuggingFaceReading(
        model_type="cwm",
        biases=NO_BIASES,
        defaults={
            "num_attention_heads": 48,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 128256,
            "hidden_act": "silu",
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "mlp_bias": False,
            "rope_theta": 1000000.0,
            "sliding_window": 8192,
        },
        params=_params,
        rope=partial(rope_params_or, default=_ROPE),  # Llama 3.1's, with figures of its own
    )
)
