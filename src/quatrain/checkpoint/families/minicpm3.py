"""MiniCPM 3: latent attention, and Granite's multipliers, which follow from depth and width."""

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.families.latent import gguf, heads
from quatrain.checkpoint.families.latent.hugging_face import (
    NAMES,
    heads_apart,
    latent_params,
    latent_rope,
)
from quatrain.checkpoint.families.minicpm import fixed_multipliers, multipliers
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields


def _params(fields: Fields) -> Params:
    """A multiplier whose field is null is 1."""
    layers, width = fields.layer_count(), fields.integer("hidden_size")
    depth = fields.number_or_none("scale_depth") or layers**0.5
    base = fields.number_or_none("dim_model_base") or width
    scale = fields.number("scale_emb")
    return latent_params(fields) | multipliers(scale, depth, base, layers, width)


def _gguf_heads(metadata: GgufMetadata) -> heads.Heads:
    """Of values as wide as the embedding together, which a file need not state."""
    widest = metadata.count("embedding_length") // metadata.count("attention.head_count")
    values = metadata.count("attention.value_length", widest)
    return gguf.heads_of(metadata, metadata.count("attention.key_length"), values)


def _gguf_params(metadata: GgufMetadata) -> Params:
    return gguf.latent_params(metadata, _gguf_heads(metadata)) | fixed_multipliers(metadata)


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
