"""The Llama 4 text model as Meta releases it: its params.json and its fused tensors.

Names and layouts are those that `models/llama4` of github.com/meta-llama/llama-models loads.
"""

import re
from collections.abc import Callable
from typing import Any

import torch

from quatrain.checkpoint.tensors import LazyTensors, StoredTensor
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
_LAYER = re.compile(r"(layers\.\d+)\.(.+)")
# Fields that our own come from, and those that shapes of tensors say better.
_MOE_FIELDS = {
    "num_experts": "num_experts",
    "top_k": "num_activated_experts",
    "interleave_moe_layer_step": "interleave_moe_layer_step",
}
_MOE_UNUSED = {"capacity_factor", "auto_scale_F"}
_UNUSED_FIELDS = {
    "ffn_exp",
    "ffn_dim_multiplier",
    "multiple_of",
    "vision_args",
    "vision_chunk_size",
}


def is_llama4(params: dict[str, Any]) -> bool:
    """Whether a params.json is one of Meta's Llama 4."""
    return "nope_layer_interval" in params or "moe_args" in params


def llama4_params(params: dict[str, Any], tensors: LazyTensors, source: str) -> dict[str, Any]:
    """Meta's fields in those of the backbone; widths are those of `tensors` (Meta names)."""
    params = {name: value for name, value in params.items() if name not in _UNUSED_FIELDS}
    moe = params.pop("moe_args", None) or {}
    unknown = set(moe) - set(_MOE_FIELDS) - _MOE_UNUSED
    if unknown:
        raise InputError(f"{source}: moe_args has {', '.join(sorted(unknown))}, not implemented")
    params |= {ours: moe[theirs] for theirs, ours in _MOE_FIELDS.items() if theirs in moe}
    for theirs, ours in (
        ("nope_layer_interval", "no_rope_layer_interval"),
        ("rope_scaling_factor", "rope_scale_factor"),
        ("rope_high_freq_factor", "high_freq_factor"),
    ):
        if params.get(theirs) is not None:
            params[ours] = params[theirs]
        params.pop(theirs, None)
    if float(params.get("floor_scale", 1)).is_integer():
        params["floor_scale"] = int(params.get("floor_scale", 8192))
    for name, tensor in tensors.stored.items():
        if name.endswith("feed_forward.w1.weight"):
            params["hidden_dim"] = tensor.shape[0]
        elif name.endswith("shared_expert.w1.weight"):
            params["moe_hidden_dim"] = tensor.shape[0]
    return params | {
        "hidden_dim": params.get("hidden_dim") or params.get("moe_hidden_dim"),
        "qk_norm_affine": False,
        "qk_norm_before_rope": False,
        "qk_norm_without_rope": False,
    }


def llama4_tensors(stored: LazyTensors, params: dict[str, Any], source: str) -> LazyTensors:
    """The tensors under the backbone's names, fused ones apart and experts as [experts, N, K]."""
    result: dict[str, StoredTensor] = {}
    for name, tensor in stored.stored.items():
        if _UNUSED.fullmatch(name):
            continue
        match = _LAYER.fullmatch(name)
        layer, part = (match[1], match[2]) if match else ("", name)
        if part in _EXPERTS:
            result[f"{layer}.{_EXPERTS[part]}"] = _experts(tensor, params, source)
        elif part == "feed_forward.router_DE":
            shape = (tensor.shape[1], tensor.shape[0])
            result[f"{layer}.feed_forward.router.weight"] = _with(tensor, shape, _transposed)
        elif part in ("attention.wqkv.weight", "feed_forward.mlp.fc1_weight"):
            result |= _apart(tensor, layer, part, params)
        else:
            result[f"{layer}.{_RENAMED.get(part, part)}" if match else name] = tensor
    return LazyTensors(result)


def _apart(
    tensor: StoredTensor, layer: str, part: str, params: dict[str, Any]
) -> dict[str, StoredTensor]:
    """The linears whose rows lie one after the other in `tensor`."""
    if part == "feed_forward.mlp.fc1_weight":
        rows = {"feed_forward.w1": tensor.shape[0] // 2, "feed_forward.w3": tensor.shape[0] // 2}
    else:
        heads, keys = params["n_heads"], params.get("n_kv_heads") or params["n_heads"]
        head_dim = tensor.shape[0] // (heads + 2 * keys)
        rows = {
            "attention.wq": heads * head_dim,
            "attention.wk": keys * head_dim,
            "attention.wv": keys * head_dim,
        }
    apart, first = {}, 0
    for name, count in rows.items():
        shape = (count, *tensor.shape[1:])
        apart[f"{layer}.{name}.weight"] = _with(
            tensor, shape, lambda whole, first=first, count=count: whole[first : first + count]
        )
        first += count
    return apart


def _experts(tensor: StoredTensor, params: dict[str, Any], source: str) -> StoredTensor:
    """[experts * K, N] as [experts, N, K]."""
    moe = params.get("moe_args") or {}
    count = moe.get("num_experts") or 0
    if count < 1 or tensor.shape[0] % count:
        raise InputError(
            f"{source}: holds experts of {list(tensor.shape)}, moe_args says num_experts {count}"
        )
    columns = tensor.shape[0] // count
    return _with(
        tensor,
        (count, tensor.shape[1], columns),
        lambda whole: whole.view(count, columns, -1).transpose(1, 2).contiguous(),
    )


def _transposed(whole: torch.Tensor) -> torch.Tensor:
    return whole.T.contiguous()


def _with(
    tensor: StoredTensor, shape: tuple[int, ...], change: Callable[[torch.Tensor], torch.Tensor]
) -> StoredTensor:
    return StoredTensor(shape, tensor.dtype, lambda: change(tensor.load()))
