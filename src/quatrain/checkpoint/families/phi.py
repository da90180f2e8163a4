"""Phi-3 and Phi-4-mini: LongRoPE on part of each head; Q, K and V in one tensor, gate and up
in another."""

from quatrain.checkpoint.families.family import (
    NO_BIASES,
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
)
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import window_of_all
from quatrain.checkpoint.hugging_face.rope.rope_parameters import rope_params, rope_type
from quatrain.checkpoint.hugging_face.tensors.fused_rows import rows_apart


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    heads = fields.integer("num_attention_heads")
    keys = fields.integer_or_none("num_key_value_heads") or heads
    width = fields.head_width()
    hidden = fields.integer("intermediate_size")
    parts = {
        "qkv_proj": {"q_proj": heads * width, "k_proj": keys * width, "v_proj": keys * width},
        "gate_up_proj": {"gate_proj": hidden, "up_proj": hidden},
    }
    return rows_apart(stored, parts, fields.source)


def _rope(fields: Fields) -> Params:
    """Releases of 2024 call LongRoPE "su" or "yarn", as their own code and transformers know."""
    named = {
        name: dict(scaling) | {"rope_type": "longrope"}
        for name in ("rope_scaling", "rope_parameters")
        if isinstance(scaling := fields.get(name), dict) and rope_type(scaling) == "yarn"
    }
    return rope_params(fields | named, partial=True)


def _gguf_params(metadata: GgufMetadata) -> Params:
    return metadata.rotated_part() | metadata.window_of_all()


def _gguf_fused(metadata: GgufMetadata) -> dict[str, dict[str, int]]:
    hidden = metadata.count("feed_forward_length")
    return metadata.fused_attention() | {"ffn_up": {"ffn_gate": hidden, "ffn_up": hidden}}


PHI = Family(
    hugging_face=HuggingFaceReading(
        model_type="phi3",
        biases=NO_BIASES,
        defaults={
            "num_attention_heads": 32,
            "vocab_size": 32064,
            "hidden_act": "silu",
            "max_position_embeddings": 4096,
            "original_max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
        },
        params=window_of_all,
        rope=_rope,
        tensors=_tensors,
    ),
    gguf=GgufReading(
        "phi3",
        half_split=True,
        params=_gguf_params,
        fused=_gguf_fused,
    ),
)
