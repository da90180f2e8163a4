"""EXAONE 3.0 and 3.5, and Deep: a Llama under names of its own."""

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading

EXAONE = Family(
    hugging_face=HuggingFaceReading(
        model_type="exaone",
        defaults={
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "vocab_size": 102400,
            "hidden_act": "silu",
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "mlp_bias": False,
            "rope_theta": 500000.0,
        },
        aliases={
            "num_layers": "num_hidden_layers",
            "layer_norm_epsilon": "rms_norm_eps",
            "activation_function": "hidden_act",
        },
        on_hub={
            "transformer.wte.": "model.embed_tokens.",
            "transformer.h.": "model.layers.",
            "transformer.ln_f.": "model.norm.",
            ".attn.attention.out_proj.": ".self_attn.o_proj.",
            ".attn.attention.": ".self_attn.",
            ".ln_1.": ".input_layernorm.",
            ".ln_2.": ".post_attention_layernorm.",
            ".mlp.c_fc_0.": ".mlp.gate_proj.",
            ".mlp.c_fc_1.": ".mlp.up_proj.",
            ".mlp.c_proj.": ".mlp.down_proj.",
        },
    ),
    gguf=GgufReading("exaone", half_split=True),
)
