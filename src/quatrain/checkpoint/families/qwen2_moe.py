"""Qwen 1.5 and 2 MoE: a Qwen 2 with a mixture of experts in each layer, or in every n-th, and an
expert for every token behind a gate of its own."""

from quatrain.checkpoint.families import qwen3_moe, weighted_experts
from quatrain.checkpoint.families.family import (
    Biases,
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
    sizes,
)
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import window_of_some
from quatrain.checkpoint.hugging_face.tensors.experts import experts_apart


def _params(fields: Fields) -> Params:
    experts = qwen3_moe.experts(fields)
    shared = weighted_experts.shared_params(fields) if experts else {}
    return _windows(fields) | experts | shared


def _windows(fields: Fields) -> Params:
    """Of every other layer, in the first ones."""
    layers = fields.layer_count()
    needed = fields.flag("use_sliding_window") and fields.get("layer_types") is None
    last = fields.integer("max_window_layers", least=0) if needed else 0
    slides = [index % 2 == 0 and index < last for index in range(layers)]
    return window_of_some(fields, slides)


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    return weighted_experts.with_shared_gates(experts_apart(stored, fields.source))


QWEN2_MOE = Family(
    hugging_face=HuggingFaceReading(
        "qwen2_moe",
        biases=Biases("qkv_bias", False),
        defaults={
            "qkv_bias": True,
            "num_attention_heads": 16,
            "num_key_value_heads": 16,
            "vocab_size": 151936,
            "hidden_act": "silu",
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "sliding_window": 4096,
            "max_window_layers": 28,
            "decoder_sparse_step": 1,
            "moe_intermediate_size": 1408,
            "shared_expert_intermediate_size": 5632,
            "num_experts": 60,
            "num_experts_per_tok": 4,
            "norm_topk_prob": False,
        },
        sizes=sizes(2048, 5632, 24),
        params=_params,
        names={**weighted_experts.names("mlp"), **weighted_experts.SHARED_NAMES},
        tensors=_tensors,
    ),
    gguf=GgufReading(
        "qwen2moe",
        half_split=True,
        biased=True,
        params=lambda metadata: weighted_experts.gguf_params(
            metadata, normalized=False, shared=True
        ),
        names={**weighted_experts.GGUF_NAMES, **weighted_experts.GGUF_SHARED_NAMES},
        tensors=lambda tensors, metadata: weighted_experts.gguf_with_shared_gates(tensors),
    ),
)
