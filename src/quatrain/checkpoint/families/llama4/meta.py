"""Llama 4 as Meta releases it: its params.json and its fused tensors.

Names and layouts are those that `models/llama4` of github.com/meta-llama/llama-models loads. A
shard of a model has every fused tensor for its own slice, so it is taken apart before shards are
joined.
"""

import re

from quatrain.backbone.params.field_types import typed_value
from quatrain.checkpoint.families.family import MetaReading, Params
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.errors import InputError

_RENAMED = {
    "attention.wqkv.layer_norm_weight": "attention_norm.weight",
    "feed_forward.norm.weight": "ffn_norm.weight",
    "feed_forward.mlp.layer_norm_weight": "ffn_norm.weight",
    "feed_forward.mlp.fc2_weight": "feed_forward.w2.weight",
    "feed_forward.w_in_shared_FD.weight": "feed_forward.shared_expert.w1.weight",
    "feed_forward.w_out_shared_DF.weight": "feed_forward.shared_expert.w2.weight",
    "feed_forward.w_swiglu_FD.weight": "feed_forward.shared_expert.w3.weight",
}
_EXPERTS = {
    "feed_forward.experts.moe_w_in_eD_F": "feed_forward.experts.w1.weight",
    "feed_forward.experts.moe_w_out_eF_D": "feed_forward.experts.w2.weight",
    "feed_forward.experts.moe_w_swiglu_eD_F": "feed_forward.experts.w3.weight",
}
# Statistics of training, and what belongs to other modalities.
_UNUSED = re.compile(
    r".*\.(global_gate_stats_3E|running_gate_stats_3E|expert_activation_DE|_extra_state)"
    r"|(vision|speech)_\w+\..*"
)
# What Meta's code takes for figures that a params.json leaves out, as Scout's does.
_DEFAULTS = {
    "rope_theta": 500000.0,
    "rope_scale_factor": 16.0,
    "high_freq_factor": 1.0,
}
_LAYER = re.compile(r"(layers\.\d+)\.(.+)")
# Fields that our own come from, and those that shapes of tensors say better.
_MOE_FIELDS = {
    "num_experts": "num_experts",
    "top_k": "num_activated_experts",
    "interleave_moe_layer_step": "interleave_moe_layer_step",
}
_RENAMED_FIELDS = {
    "nope_layer_interval": "no_rope_layer_interval",
    "rope_scaling_factor": "rope_scale_factor",
    "rope_high_freq_factor": "high_freq_factor",
}
_MOE_UNUSED = {"capacity_factor", "auto_scale_F"}
_UNUSED_FIELDS = {
    "ffn_exp",
    "ffn_dim_multiplier",
    "multiple_of",
    "vision_args",
    "vision_chunk_size",
}


def _moe_args(params: Params, source: str) -> Params:
    """`moe_args`, {} if there are none. Raises `InputError` if it is not as expected."""
    moe = params.get("moe_args")
    if not isinstance(moe, dict | None):
        raise InputError(f"{source}: moe_args is {moe!r}, expected an object or null")
    unknown = set(moe or {}) - set(_MOE_FIELDS) - _MOE_UNUSED
    if unknown:
        raise InputError(
            f"{source}: moe_args has {', '.join(sorted(unknown))}, which is not implemented"
        )
    return moe or {}


def _params(params: Params, tensors: LazyTensors, source: str) -> Params:
    """Meta's fields in those of the backbone; widths are those of `tensors` (Meta names)."""
    params = {name: value for name, value in params.items() if name not in _UNUSED_FIELDS}
    moe = _moe_args(params, source)
    params.pop("moe_args", None)
    params |= {ours: moe[theirs] for theirs, ours in _MOE_FIELDS.items() if theirs in moe}
    for theirs, ours in _RENAMED_FIELDS.items():
        value = params.pop(theirs, None)
        if value is not None:
            params[ours] = value
    scale = params.get("floor_scale")
    if isinstance(scale, float) and scale.is_integer():
        params["floor_scale"] = int(scale)
    for name, default in _DEFAULTS.items():
        if params.get(name) is None:
            params[name] = default
    for name, tensor in tensors.stored.items():
        if name.endswith("feed_forward.w1.weight"):
            params["hidden_dim"] = next(iter(tensor.shape), None)
        elif name.endswith("shared_expert.w1.weight"):
            params["moe_hidden_dim"] = next(iter(tensor.shape), None)
    return params | {
        "hidden_dim": params.get("hidden_dim") or params.get("moe_hidden_dim"),
        "qk_norm_affine": False,
        "qk_norm_before_rope": False,
        "qk_norm_without_rope": False,
    }


def _tensors(stored: LazyTensors, params: Params, source: str) -> LazyTensors:
    """The tensors under the backbone's names, fused ones apart and experts as [experts, N, K]."""
    heads, keys, experts = _counts(params, source)
    result: dict[str, StoredTensor] = {}
    for name, tensor in stored.stored.items():
        if _UNUSED.fullmatch(name):
            continue
        match = _LAYER.fullmatch(name)
        layer, part = (match[1], match[2]) if match else ("", name)
        if part in _EXPERTS:
            _check_rows(name, tensor, experts, "num_experts in moe_args", source)
            result[f"{layer}.{_EXPERTS[part]}"] = _experts(tensor, experts)
        elif part == "feed_forward.router_DE":
            _check_rows(name, tensor, 1, "", source)
            result[f"{layer}.feed_forward.router.weight"] = tensor.changed(
                lambda whole: whole.T.contiguous(), tensor.shape[::-1]
            )
        elif part == "attention.wqkv.weight":
            parts = {"attention.wq": heads, "attention.wk": keys, "attention.wv": keys}
            _check_rows(
                name, tensor, heads + 2 * keys, "heads for queries, keys and values", source
            )
            result |= _split_rows(tensor, layer, parts)
        elif part == "feed_forward.mlp.fc1_weight":
            _check_rows(name, tensor, 2, "halves", source)
            result |= _split_rows(tensor, layer, {"feed_forward.w1": 1, "feed_forward.w3": 1})
        else:
            result[f"{layer}.{_RENAMED.get(part, part)}" if match else name] = tensor
    return LazyTensors(result)


def _counts(params: Params, source: str) -> tuple[int, int, int]:
    """The numbers of heads, of key heads, and of experts; 1 if there are no experts."""
    heads = typed_value("n_heads", params.get("n_heads"), int, source)
    keys = heads
    if params.get("n_kv_heads") is not None:
        keys = typed_value("n_kv_heads", params["n_kv_heads"], int, source)
    experts = _moe_args(params, source).get("num_experts")
    if experts is not None:
        experts = typed_value("num_experts", experts, int, source, zero=True)
    return heads, keys, experts or 1


def _check_rows(name: str, tensor: StoredTensor, count: int, what: str, source: str) -> None:
    """Raise `InputError` unless `tensor` is a matrix with a number of rows that is a multiple of
    `count`."""
    if len(tensor.shape) != 2 or tensor.shape[0] % count:
        rows = f" with a number of rows that is a multiple of {count} ({what})" if count > 1 else ""
        raise InputError(
            f"{source}: {name} has shape {list(tensor.shape)}, expected a matrix{rows}; "
            "give the params.json that belongs to this file"
        )


def _split_rows(tensor: StoredTensor, layer: str, parts: dict[str, int]) -> dict[str, StoredTensor]:
    """The linears whose rows lie one after the other in `tensor`, each as many shares of them."""
    share = tensor.shape[0] // sum(parts.values())
    apart, first = {}, 0
    for name, shares in parts.items():
        apart[f"{layer}.{name}.weight"] = tensor.rows(first, shares * share)
        first += shares * share
    return apart


def _experts(tensor: StoredTensor, count: int) -> StoredTensor:
    """[experts * K, N] as [experts, N, K]."""
    columns = tensor.shape[0] // count
    return tensor.changed(
        lambda whole: whole.view(count, columns, -1).transpose(1, 2).contiguous(),
        (count, tensor.shape[1], columns),
    )


META = MetaReading(
    marks=frozenset({"nope_layer_interval", "moe_args"}), tensors=_tensors, params=_params
)
