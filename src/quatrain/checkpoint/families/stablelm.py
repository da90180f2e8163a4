"""StableLM 2: layer norms with bias, and a quarter of each head rotated; of some attention and
feed-forward read one norm."""

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields, flag
from quatrain.checkpoint.hugging_face.rope_parameters import rope_params
from quatrain.errors import InputError

_LAYER_NORMS = {"norm_type": "layer", "norm_bias": True}


def _params(fields: Fields, source: str) -> Params:
    if flag(fields, "qk_layernorm", source):
        raise InputError(
            f"{source}: qk_layernorm is true: a layer norm of its own for each head, which this "
            "backbone does not implement; StableLM 2 1.6B has none"
        )
    return _LAYER_NORMS | {"parallel_residual": flag(fields, "use_parallel_residual", source)}


def _rope(fields: Fields, source: str) -> Params:
    rotated = fields.get("partial_rotary_factor")
    stated = {"partial_rotary_factor": 0.25 if rotated is None else rotated}
    return rope_params(fields | stated, source, partial=True)


def _gguf_params(metadata: GgufMetadata) -> Params:
    """llama.cpp has both in parallel where a layer has no second norm."""
    rotated = metadata.number("rope.dimension_count", metadata.head_dim())
    return _LAYER_NORMS | {
        "parallel_residual": "blk.0.ffn_norm.weight" not in metadata.file.tensors,
        "partial_rotary_factor": rotated / metadata.head_dim(),
    }


STABLELM = Family(
    hugging_face=HuggingFaceReading(
        model_type="stablelm",
        defaults={
            "num_attention_heads": 32,
            "num_key_value_heads": 32,
            "vocab_size": 50304,
            "hidden_act": "silu",
            "max_position_embeddings": 4096,
            "layer_norm_eps": 1e-5,
            "rope_theta": 10000.0,
        },
        params=_params,
        rope=_rope,
    ),
    gguf=GgufReading(
        "stablelm",
        half_split=True,
        params=_gguf_params,
        reads=frozenset({"rope.dimension_count", "use_parallel_residual"}),
    ),
)
