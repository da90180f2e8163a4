"""MiniCPM 3: latent attention, and Granite's multipliers, which follow from depth and width."""

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.families.latent import gguf, heads
from quatrain.checkpoint.families.latent.hugging_face import (
    NAMES,
    heads_apart,
    latent_params,
    latent_rope,
)
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields


def _params(fields: Fields) -> Params:
    depth, base = (fields.number_or_none(name) for name in ("scale_depth", "dim_model_base"))
    return latent_params(fields) | {
        "embedding_scale_factor": fields.number("scale_emb"),
        "residual_multiplier": depth / fields.layer_count() ** 0.5 if depth else 1.0,
        "logits_scaling": fields.integer("hidden_size") / base if base else 1.0,
    }


def _gguf_heads(metadata: GgufMetadata) -> heads.Heads:
    """Of values as wide as the embedding together, which a file need not state."""
    widest = metadata.count("embedding_length") // metadata.count("attention.head_count")
    values = metadata.count("attention.value_length", widest)
    return gguf.heads_of(metadata, metadata.count("attention.key_length"), values)


def _gguf_params(metadata: GgufMetadata) -> Params:
    """With the multipliers of the 4B model, which llama.cpp fixes."""
    width, layers = metadata.count("embedding_length"), metadata.layer_count()
    return gguf.latent_params(metadata, _gguf_heads(metadata)) | {
        "embedding_scale_factor": 12.0,
        "residual_multiplier": 1.4 / layers**0.5,
        "logits_scaling": width / 256,
    }


def _gguf_heads_apart(tensors: LazyTensors, metadata: GgufMetadata) -> LazyTensors:
    source = str(metadata.file.path)
    return heads.heads_apart(tensors, _gguf_heads(metadata), ".attn_kv_b", source)


MINICPM3 = Family(
    hugging_face=HuggingFaceReading(
        model_type="minicpm3",
        defaults={
            "num_attention_heads": 40,
            "num_key_value_heads": 40,
            "vocab_size": 73448,
            "hidden_act": "silu",
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "attention_bias": False,
            "mlp_bias": False,
            "kv_lora_rank": 256,
            "q_lora_rank": 768,
            "qk_nope_head_dim": 64,
            "qk_rope_head_dim": 32,
            "scale_emb": 12,
            "scale_depth": 1.4,
            "dim_model_base": 256,
        },
        params=_params,
        rope=latent_rope,
        names=NAMES,
        tensors=heads_apart,
        tied=True,
    ),
    gguf=GgufReading(
        "minicpm3",
        half_split=True,
        params=_gguf_params,
        names=gguf.NAMES,
        floats=_gguf_heads_apart,
    ),
)
