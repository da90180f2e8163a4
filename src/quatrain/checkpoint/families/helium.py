"""Helium: a Llama that rotates pairs of neighbours."""

from quatrain.checkpoint.families.family import Biases, Family, HuggingFaceReading

HELIUM = Family(
    hugging_face=HuggingFaceReading(
        model_type="helium",
        biases=Biases("attention_bias", False),
        defaults={
            "num_attention_heads": 20,
            "num_key_value_heads": 20,
            "head_dim": 128,
            "vocab_size": 48000,
            "hidden_act": "silu",
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-8,
            "mlp_bias": False,
            "rope_theta": 100000.0,
        },
        params=lambda fields: {"use_hf_rope": False},
    )
)
