"""StableLM 2: layer norms with bias, and a quarter of each head rotated; of some attention and
feed-forward read one norm."""

from functools import partial

from quatrain.checkpoint.families.family import (
    Biases,
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
)
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope.rope_parameters import partial_rope_params
from quatrain.errors import InputError

_LAYER_NORMS = {"norm_type": "layer", "norm_bias": True}


def _params(fields: Fields) -> Params:
    if fields.flag("qk_layernorm"):
        raise InputError(
            f"{fields.source}: qk_layernorm is true: each head has its own layer norm, which this "
            "backbone does not implement; StableLM 2 1.6B does not use it"
        )
    return _LAYER_NORMS | {"parallel_residual": fields.flag("use_parallel_residual")}


def _gguf_params(metadata: GgufMetadata) -> Params:
    """llama.cpp has both in parallel where a layer has no second norm, and asks nothing else."""
    metadata.get("use_parallel_residual")  # so that it is not refused
    parallel = "blk.0.ffn_norm.weight" not in metadata.file.tensors
    return _LAYER_NORMS | {"parallel_residual": parallel} | metadata.rotated_part()


STABLELM = Family(
    hugging_face=HuggingFaceReading(
        model_type="stablelm",
        biases=Biases("use_qkv_bias", False),
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
        rope=partial(partial_rope_params, rotated=0.25),
    ),
    gguf=GgufReading(
        "stablelm",
        half_split=True,
        params=_gguf_params,
    ),
)
