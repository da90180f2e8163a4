"""OLMo 1: a Llama whose norms are layer norms without weights. A checkpoint has them of ones."""

import numpy as np

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading, Params
from quatrain.checkpoint.gguf.blocks import GgufTensor
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.norms import with_norms_of_ones

_LAYER_NORMS = {"norm_type": "layer"}
_EPS = 1e-5  # which transformers fixes, and files do not state


def _params(fields: Fields) -> Params:
    if fields.get("clip_qkv") is not None:
        expected = "null; clipping queries, keys and values is not implemented"
        raise fields.refusal("clip_qkv", expected)
    return _LAYER_NORMS


def _gguf_tensors(tensors: dict[str, GgufTensor], metadata: GgufMetadata) -> dict[str, GgufTensor]:
    embedding = tensors.get("token_embd.weight")
    if embedding is None:  # which is an error later
        return tensors
    width = embedding.shape[-1]
    ones = np.ones((1, width), "<f4").view(np.uint8)
    norms = [
        f"blk.{index}.{norm}.weight"
        for index in range(metadata.layer_count())
        for norm in ("attn_norm", "ffn_norm")
    ]
    names = [*norms, "output_norm.weight"]
    return tensors | {name: GgufTensor(name, "F32", (width,), ones) for name in names}


OLMO_1 = Family(
    hugging_face=HuggingFaceReading(
        model_type="olmo",
        defaults={
            "num_attention_heads": 32,
            "vocab_size": 50304,
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "rope_theta": 10000.0,
        },
        params=_params,
        tensors=with_norms_of_ones,
        norm_eps=_EPS,
    ),
    gguf=GgufReading(
        "olmo", half_split=False, params=lambda metadata: _LAYER_NORMS, tensors=_gguf_tensors
    ),
)
