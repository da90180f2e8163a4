"""Llama 4 in the format of the Hugging Face hub."""

from quatrain.checkpoint.families import weighted_experts
from quatrain.checkpoint.families.family import HuggingFaceReading, Params
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.layer_types import interval_of, no_rope_interval
from quatrain.checkpoint.hugging_face.tensors.experts import FUSED, experts_apart
from quatrain.checkpoint.hugging_face.tensors.tensor_names import gated_names
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
    **gated_names("feed_forward"),
    **weighted_experts.shared_names("feed_forward.shared_expert"),
    **weighted_experts.names("feed_forward", router="router"),
}


def _params(fields: Fields) -> Params:
    interval = no_rope_interval(fields)
    chunked = full_every(interval, fields.layer_count(), "chunked_attention")
    stated, whole = fields.get("layer_types"), ["full_attention"] * fields.layer_count()
    if stated not in (None, chunked, whole):
        raise fields.refusal("layer_types", "chunked attention in the layers with rotary embedding")
    chunk = None if stated == whole else fields.integer_or_none("attention_chunk_size")
    return {
        "use_hf_rope": False,  # pairs of neighbours, unlike the other families of the hub
        "no_rope_layer_interval": interval,
        "attention_chunk_size": chunk,
        "use_qk_norm": fields.flag("use_qk_norm"),
        "qk_norm_affine": False,
        "qk_norm_before_rope": False,
        "qk_norm_without_rope": False,
        "attn_temperature_tuning": fields.flag("attn_temperature_tuning"),
        "floor_scale": fields.integer("floor_scale"),
        "attn_scale": fields.number("attn_scale"),
        "hidden_dim": fields.integer("intermediate_size_mlp"),
    } | _experts(fields)


def _experts(fields: Fields) -> Params:
    listed = fields.integers_or_none("moe_layers")
    if listed is None:
        step = fields.integer("interleave_moe_layer_step")
    else:
        mixed = [index for index in range(fields.layer_count()) if index in listed]
        step = interval_of(mixed, "moe_layers", fields)
    if step is None:
        return {}
    return {
        # What a router has one row for is lost where tensors of one row become vectors.
        "num_experts": fields.integer("num_local_experts", least=2),
        "num_activated_experts": fields.integer("num_experts_per_tok"),
        "interleave_moe_layer_step": step,
        "moe_hidden_dim": fields.integer("intermediate_size"),
    }


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    """The hub has experts as [experts, K, N], or, where they were quantized, one by one."""
    transposed = stored.each(lambda name, tensor: _transposed(name, tensor, fields.source))
    return experts_apart(transposed, fields.source)


def _transposed(name: str, tensor: StoredTensor, source: str) -> StoredTensor:
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
