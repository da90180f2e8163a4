"""Lara Mini: gated delta rules as Qwen 3.5's, attention as Qwen 3's with a window, the only layers
with a rotary embedding, or to all tokens; in each layer experts and one for every token."""

from quatrain.checkpoint.families import weighted_experts
from quatrain.checkpoint.families.family import Family, HuggingFaceReading, Params
from quatrain.checkpoint.families.qwen3_5 import hugging_face as qwen3_5
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import layer_types
from quatrain.checkpoint.hugging_face.tensors.experts import experts_apart
from quatrain.checkpoint.hugging_face.tensors.fused_rows import rows_apart
from quatrain.checkpoint.nth_layers import FULL, SLIDING

_DELTA = qwen3_5.DELTA
_PATTERN = (_DELTA, SLIDING, _DELTA, FULL, SLIDING)  # if config.json says nothing


def _params(fields: Fields) -> Params:
    width = fields.integer("moe_intermediate_size")
    layers = range(fields.layer_count())
    kinds = layer_types(fields, SLIDING, _DELTA) or [_PATTERN[i % len(_PATTERN)] for i in layers]
    windows = {"sliding_window": fields.integer("sliding_window")} if SLIDING in kinds else {}
    return {
        **qwen3_5.sizes_of_delta_rules(fields),
        **weighted_experts.hugging_face_params(fields, fields.flag("norm_topk_prob")),
        **weighted_experts.SHARED,
        "shared_hidden_dim": fields.integer("shared_expert_intermediate_size"),
        "hidden_dim": width,
        "moe_hidden_dim": width,
        "layer_types": kinds,
        **windows,
        "global_rope": False,
        "use_qk_norm": True,
        "attention_output_bias": fields.flag("attention_bias"),  # not in the first layer
    }


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    """Releases have in one matrix what a delta rule reads."""
    keys, values = (
        fields.integer(f"linear_num_{kind}_heads") * fields.integer(f"linear_{kind}_head_dim")
        for kind in ("key", "value")
    )
    heads = fields.integer("linear_num_value_heads")
    parts = {"qkv": 2 * keys + values, "z": values, "b": heads, "a": heads}
    rows = {f"in_proj_{part}": count for part, count in parts.items()}
    return experts_apart(rows_apart(stored, {"in_proj": rows}, fields.source), fields.source)


LARA_MINI = Family(
    hugging_face=HuggingFaceReading(
        model_type="lara_mini",
        defaults={
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "head_dim": 128,
            "vocab_size": 151936,
            "hidden_act": "silu",
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-6,
            "rope_theta": 10000.0,
            "linear_conv_kernel_dim": 4,
            "linear_key_head_dim": 128,
            "linear_value_head_dim": 128,
            "linear_num_key_heads": 8,
            "linear_num_value_heads": 16,
            "moe_intermediate_size": 512,
            "shared_expert_intermediate_size": 512,
            "num_experts_per_tok": 4,
            "num_experts": 128,
            "norm_topk_prob": True,
            "sliding_window": 512,
        },
        params=_params,
        names={**qwen3_5.NAMES, **weighted_experts.names("mlp"), **weighted_experts.SHARED_NAMES},
        on_hub={".linear_attn.out_norm.": ".linear_attn.norm."},
        tensors=_tensors,
        tied=True,
    )
)
