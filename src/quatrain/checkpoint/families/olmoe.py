"""OLMoE: one norm of all query heads together, one of all key heads, and a mixture of experts in
each layer. Norms are at the same places as in a Llama."""

from quatrain.checkpoint.families import weighted_experts
from quatrain.checkpoint.families.family import (
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
    sizes,
)
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields


def _params(fields: Fields) -> Params:
    if fields.get("clip_qkv") is not None:
        raise fields.refusal("clip_qkv", "null; clipping queries is not implemented")
    normalized = fields.flag("norm_topk_prob")
    mixture = weighted_experts.hugging_face_params(fields, normalized)
    return mixture | {"qk_norm_whole": True}


def _gguf_params(metadata: GgufMetadata) -> Params:
    return weighted_experts.gguf_params(metadata, normalized=False) | {"qk_norm_whole": True}


OLMOE = Family(
    hugging_face=HuggingFaceReading(
        "olmoe",
        defaults={
            "num_attention_heads": 16,
            "vocab_size": 50304,
            "hidden_act": "silu",
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "rope_theta": 10000.0,
            "num_experts": 64,
            "num_experts_per_tok": 8,
            "norm_topk_prob": False,
        },
        sizes=sizes(2048, 2048, 16),
        aliases={"num_local_experts": "num_experts"},
        params=_params,
        names=weighted_experts.names("mlp"),
        tensors=weighted_experts.tensors,
    ),
    gguf=GgufReading(
        "olmoe",
        half_split=True,
        params=_gguf_params,
        names=weighted_experts.GGUF_NAMES,
    ),
)
