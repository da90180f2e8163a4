"""Arcee AFM: a Llama whose feed-forward has no gate and squares its relu."""

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading

ARCEE = Family(
    hugging_face=HuggingFaceReading(
        model_type="arcee",
        defaults={
            "num_attention_heads": 32,
            "vocab_size": 32000,
            "hidden_act": "relu2",
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "mlp_bias": False,
            "rope_theta": 10000.0,
        },
        params=lambda fields: {"feed_forward_gate": False},
        names={"mlp.up_proj": "feed_forward.w1"},
        activations={"relu2": "relu2"},
    ),
    gguf=GgufReading(
        "arcee",
        half_split=False,
        params=lambda metadata: {"feed_forward_gate": False, "act_fn": "relu2"},
        names={"ffn_up": "feed_forward.w1"},
    ),
)
