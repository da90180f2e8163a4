"""Jais 2: a Llama with layer norms, bias on every linear, and a feed-forward without a gate that
squares its relu."""

from quatrain.checkpoint.families.family import Family, HuggingFaceReading

_UNLIKE_LLAMA = {"norm_type": "layer", "norm_bias": True, "feed_forward_gate": False}

JAIS2 = Family(
    hugging_face=HuggingFaceReading(
        model_type="jais2",
        defaults={
            "num_attention_heads": 26,
            "vocab_size": 150272,
            "hidden_act": "relu2",
            "max_position_embeddings": 8192,
            "layer_norm_eps": 1e-5,
            "attention_bias": True,
            "mlp_bias": True,
            "rope_theta": 10000.0,
        },
        params=lambda fields: _UNLIKE_LLAMA,
        names={"mlp.up_proj": "feed_forward.w1"},
        activations={"relu2": "relu2"},
    ),
)
