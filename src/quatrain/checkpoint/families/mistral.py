"""Mistral: every layer sees the last `sliding_window` tokens only."""

from quatrain.checkpoint.families.family import Family, HuggingFaceReading
from quatrain.checkpoint.hugging_face.layer_types import window_of_all

# A GGUF file of one calls it a llama, and is read as such.
MISTRAL = Family(
    hugging_face=HuggingFaceReading(
        model_type="mistral",
        defaults={
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 32000,
            "hidden_act": "silu",
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "sliding_window": 4096,
        },
        params=window_of_all,
    )
)
