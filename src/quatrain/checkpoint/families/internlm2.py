"""InternLM2 and 2.5: a Llama under names of its own, whose queries, keys and values of a head of
keys lie side by side in one matrix."""

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.fused_rows import rows_of_heads_apart


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    heads, width = fields.integer("num_attention_heads"), fields.head_width()
    keys = fields.integer_or_none("num_key_value_heads") or heads
    parts = {"q_proj": heads // keys * width, "k_proj": width, "v_proj": width}
    return rows_of_heads_apart(stored, "wqkv", parts, keys, fields.source)


INTERNLM2 = Family(
    hugging_face=HuggingFaceReading(
        model_type="internlm2",
        defaults={
            "num_attention_heads": 32,
            "vocab_size": 103168,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "attention_bias": True,
        },
        aliases={"bias": "attention_bias"},
        on_hub={
            "model.tok_embeddings.": "model.embed_tokens.",
            ".attention.wqkv.": ".self_attn.wqkv.",
            ".attention.wo.": ".self_attn.o_proj.",
            ".feed_forward.w1.": ".mlp.gate_proj.",
            ".feed_forward.w2.": ".mlp.down_proj.",
            ".feed_forward.w3.": ".mlp.up_proj.",
            ".attention_norm.": ".input_layernorm.",
            ".ffn_norm.": ".post_attention_layernorm.",
            "model.output.": "lm_head.",  # of a text model inside a multimodal one
            "output.": "lm_head.",
        },
        tensors=_tensors,
    ),
    gguf=GgufReading("internlm2", half_split=False),
)
