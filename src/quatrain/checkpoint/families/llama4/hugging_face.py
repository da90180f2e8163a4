"""Llama 4 as the Hugging Face hub has it."""

from quatrain.checkpoint.families.family import HuggingFaceReading, Params
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.hugging_face.experts import FUSED, experts_apart
from quatrain.checkpoint.hugging_face.fields import (
    Fields,
    flag,
    integer,
    integer_or_none,
    integers_or_none,
    layer_count,
    number,
    refusal,
)
from quatrain.checkpoint.hugging_face.layer_types import interval_of, no_rope_interval
from quatrain.checkpoint.nth_layers import full_every
from quatrain.errors import InputError

# As the part of a model that also sees, a configuration may leave out any of these.
_DEFAULTS = {
    "hidden_size": 5120,
    "intermediate_size": 8192,
    "intermediate_size_mlp": 16384,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 202048,
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "num_local_experts": 16,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 1,
    "use_qk_norm": True,
    "no_rope_layer_interval": 4,
    "attention_chunk_size": 8192,
    "attn_temperature_tuning": True,
    "floor_scale": 8192,
    "attn_scale": 0.1,
}
_NAMES = {
    "feed_forward.gate_proj": "feed_forward.w1",
    "feed_forward.down_proj": "feed_forward.w2",
    "feed_forward.up_proj": "feed_forward.w3",
    "feed_forward.shared_expert.gate_proj": "feed_forward.shared_expert.w1",
    "feed_forward.shared_expert.down_proj": "feed_forward.shared_expert.w2",
    "feed_forward.shared_expert.up_proj": "feed_forward.shared_expert.w3",
    "feed_forward.experts.gate_proj": "feed_forward.experts.w1",
    "feed_forward.experts.down_proj": "feed_forward.experts.w2",
    "feed_forward.experts.up_proj": "feed_forward.experts.w3",
    "feed_forward.router": "feed_forward.router",
}


def _params(fields: Fields, source: str) -> Params:
    interval = no_rope_interval(fields, source)
    chunked = full_every(interval, layer_count(fields, source), "chunked_attention")
    if fields.get("layer_types") not in (None, chunked):
        raise refusal(
            fields, "layer_types", "chunked attention where there is rotary embedding", source
        )
    return {
        "use_hf_rope": False,  # pairs of neighbours, unlike the other families of the hub
        "no_rope_layer_interval": interval,
        "attention_chunk_size": integer_or_none(fields, "attention_chunk_size", source),
        "use_qk_norm": flag(fields, "use_qk_norm", source),
        "qk_norm_affine": False,
        "qk_norm_before_rope": False,
        "qk_norm_without_rope": False,
        "attn_temperature_tuning": flag(fields, "attn_temperature_tuning", source),
        "floor_scale": integer(fields, "floor_scale", source),
        "attn_scale": number(fields, "attn_scale", source),
        "hidden_dim": integer(fields, "intermediate_size_mlp", source),
    } | _experts(fields, source)


def _experts(fields: Fields, source: str) -> Params:
    listed = integers_or_none(fields, "moe_layers", source)
    if listed is None:
        step = integer(fields, "interleave_moe_layer_step", source)
    else:
        mixed = [index for index in range(layer_count(fields, source)) if index in listed]
        step = interval_of(mixed, "moe_layers", fields, source)
    if step is None:
        return {}
    return {
        # What a router has one row for is lost where tensors of one row become vectors.
        "num_experts": integer(fields, "num_local_experts", source, least=2),
        "num_activated_experts": integer(fields, "num_experts_per_tok", source),
        "interleave_moe_layer_step": step,
        "moe_hidden_dim": integer(fields, "intermediate_size", source),
    }


def _tensors(stored: LazyTensors, fields: Fields, source: str) -> LazyTensors:
    """The hub has experts as [experts, K, N], or, where they were quantized, one by one."""
    turned = stored.each(lambda name, tensor: _turned(name, tensor, source))
    return experts_apart(turned, source)


def _turned(name: str, tensor: StoredTensor, source: str) -> StoredTensor:
    if not FUSED.fullmatch(name):
        return tensor
    if len(tensor.shape) != 3:
        raise InputError(
            f"{source}: {name} has shape {list(tensor.shape)}, expected [experts, columns, rows]; "
            "download the model's files again"
        )
    experts, columns, rows = tensor.shape
    return tensor.changed(lambda each: each.transpose(1, 2), (experts, rows, columns))


HUGGING_FACE = HuggingFaceReading(
    model_type="llama4_text",
    defaults=_DEFAULTS,
    params=_params,
    names=_NAMES,
    tensors=_tensors,
)
