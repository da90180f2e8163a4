"""Seed-OSS: a Llama with bias on Q, K and V, and of some on attention's output."""

from quatrain.checkpoint.families.family import Biases, Family, GgufReading, HuggingFaceReading

SEED_OSS = Family(
    hugging_face=HuggingFaceReading(
        model_type="seed_oss",
        biases=Biases("attention_bias", "attention_out_bias"),
        defaults={
            "attention_bias": True,
            "num_attention_heads": 80,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "vocab_size": 155136,
            "hidden_act": "silu",
            "max_position_embeddings": 524288,
            "rms_norm_eps": 1e-6,
            "mlp_bias": False,
            "rope_theta": 10000.0,
        },
    ),
    gguf=GgufReading("seed_oss", half_split=True, names={"post_attention_norm": "ffn_norm"}),
)
