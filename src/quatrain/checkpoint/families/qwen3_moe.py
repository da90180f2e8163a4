"""Qwen 3 MoE: a Qwen 3 with a mixture of experts in each layer, or in every n-th."""

from quatrain.checkpoint.families import weighted_experts
from quatrain.checkpoint.families.family import (
    Family,
    GgufReading,
    HuggingFaceReading,
    Params,
    sizes,
)
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import interval_of, window_of_all
from quatrain.checkpoint.nth_layers import is_nth


def _params(fields: Fields) -> Params:
    used = fields.flag("use_sliding_window")
    window = window_of_all(fields) if used else {}
    return window | experts(fields)


def experts(fields: Fields) -> Params:
    """The fields of params.json of a mixture in every n-th layer, or none where no layer has."""
    step = fields.integer("decoder_sparse_step")
    dense = fields.integers_or_none("mlp_only_layers") or []
    layers = range(fields.layer_count())
    mixed = [index for index in layers if is_nth(index, step) and index not in dense]
    interval = interval_of(mixed, "mlp_only_layers", fields)
    if interval is None:
        return {}
    normalized = fields.flag("norm_topk_prob")
    return weighted_experts.hugging_face_params(fields, normalized) | {
        "interleave_moe_layer_step": interval,
        "moe_hidden_dim": fields.integer("moe_intermediate_size"),
    }


QWEN3_MOE = Family(
    hugging_face=HuggingFaceReading(
        "qwen3_moe",
        defaults={
            "num_attention_heads": 32,
            "num_key_value_heads": 4,
            "vocab_size": 151936,
            "hidden_act": "silu",
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "sliding_window": 4096,
            "moe_intermediate_size": 768,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "norm_topk_prob": False,
            "decoder_sparse_step": 1,
        },
        sizes=sizes(2048, 6144, 24),
        params=_params,
        names=weighted_experts.names("mlp"),
        tensors=weighted_experts.tensors,
    ),
    gguf=GgufReading(
        "qwen3moe",
        half_split=True,
        params=lambda metadata: weighted_experts.gguf_params(metadata, normalized=True),
        names=weighted_experts.GGUF_NAMES,
    ),
)
