"""InternLM3: a Llama whose config.json calls its biases otherwise."""

from quatrain.checkpoint.families.family import Family, HuggingFaceReading

# A GGUF file calls it a llama, and is read as such.
INTERNLM3 = Family(
    hugging_face=HuggingFaceReading(
        model_type="internlm3",
        defaults={
            "num_attention_heads": 32,
            "num_key_value_heads": 2,
            "head_dim": 128,
            "vocab_size": 128512,
            "hidden_act": "silu",
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "mlp_bias": False,
            "rope_theta": 10000.0,
        },
        aliases={"qkv_bias": "attention_bias", "bias": "mlp_bias"},
    ),
)
