"""ERNIE 4.5 dense: a Llama that rotates pairs of neighbours, with bias on every linear or on
none."""

from quatrain.checkpoint.families.family import Biases, Family, GgufReading, HuggingFaceReading

ERNIE4_5 = Family(
    hugging_face=HuggingFaceReading(
        model_type="ernie4_5",
        biases=Biases("use_bias", "use_bias", "use_bias"),
        defaults={
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "vocab_size": 103424,
            "hidden_act": "silu",
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "rope_theta": 500000.0,
        },
        params=lambda fields: {"use_hf_rope": False},
        tied=True,
    ),
    gguf=GgufReading("ernie4_5", half_split=False),
)
