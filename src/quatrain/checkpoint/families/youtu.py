"""Youtu-LLM: a Llama with DeepSeek's latent attention."""

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.families.latent import gguf
from quatrain.checkpoint.families.latent.heads import Heads, require_shape, transposed
from quatrain.checkpoint.families.latent.hugging_face import (
    DEFAULTS,
    NAMES,
    heads_apart,
    latent_params,
    latent_rope,
)
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.gguf.rope_scaling import rope_scaling
from quatrain.checkpoint.hugging_face.fields import Fields


def _params(fields: Fields) -> Params:
    stated = fields.get("rope_interleave")
    interleaved = True if stated is None else fields.flag("rope_interleave")
    return latent_params(fields) | {"use_hf_rope": not interleaved}


def _gguf_heads(metadata: GgufMetadata) -> Heads:
    """A file states the widths of latent attention's one KV head, and those of the heads that it
    stands for."""
    keys, values = (metadata.count(f"attention.{part}_length_mla") for part in ("key", "value"))
    heads = gguf.heads_of(metadata, keys, values)
    for part, width in (("key", heads.latent + heads.turning), ("value", heads.latent)):
        key = f"attention.{part}_length"
        if metadata.count(key, width) != width:
            raise metadata.refuse(key, f"expected {width}, as wide as what is cached")
    return heads


def _gguf_params(metadata: GgufMetadata) -> Params:
    """Raises `InputError` for DeepSeek's own models, which have experts."""
    layers = metadata.stated_layers()
    if metadata.count("leading_dense_block_count", layers) < layers:
        raise metadata.refuse(
            "leading_dense_block_count",
            f"expected {layers}: GGUF files with experts beside latent attention are not "
            "implemented; use the model's Hugging Face folder",
        )
    for key in ("expert_shared_count", "expert_feed_forward_length"):  # of no expert
        metadata.get(key)
    return gguf.latent_params(metadata, _gguf_heads(metadata))


def _gguf_rope(metadata: GgufMetadata) -> Params:
    if metadata.text("rope.scaling.type") == "yarn":
        raise metadata.refuse(
            "rope.scaling.type",
            "which is not implemented here for GGUF files with latent "
            "attention; use the model's Hugging Face folder",
        )
    return rope_scaling(metadata)


def _gguf_heads_apart(tensors: LazyTensors, metadata: GgufMetadata) -> LazyTensors:
    """The matrices of heads, apart already, the other way around."""
    heads, source = _gguf_heads(metadata), str(metadata.file.path)
    shapes = {
        ".attn_k_b.weight": (heads.count, heads.latent, heads.still),
        ".attn_v_b.weight": (heads.count, heads.values, heads.latent),
    }

    def turned(name: str, tensor: StoredTensor) -> StoredTensor:
        shape = next((shapes[end] for end in shapes if name.endswith(end)), None)
        if shape is None:
            return tensor
        require_shape(tensor, shape, name, source)
        return transposed(tensor)

    return tensors.each(turned)


YOUTU = Family(
    hugging_face=HuggingFaceReading(
        model_type="youtu",
        defaults={
            **DEFAULTS,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "vocab_size": 128256,
            "max_position_embeddings": 131072,
            "rope_interleave": True,
        },
        params=_params,
        rope=latent_rope,
        names=NAMES,
        tensors=heads_apart,
        tied=True,
    ),
    gguf=GgufReading(
        "deepseek2",
        half_split=False,
        params=_gguf_params,
        rope=_gguf_rope,
        names=gguf.NAMES,
        floats=_gguf_heads_apart,
    ),
)
