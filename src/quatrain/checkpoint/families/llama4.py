"""The Llama 4 text model, as the Hugging Face hub has it."""

import re
from typing import Any

import torch

from quatrain.checkpoint.families.family import Family, Fields, interval_of, layer_count, number
from quatrain.checkpoint.tensors import LazyTensors, StoredTensor
from quatrain.errors import InputError

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
_EXPERTS = re.compile(r"(.*\.experts)\.(gate_up_proj|down_proj)")
_EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(\w+_proj\.(?:weight|scales|zeros))")


def _params(fields: Fields, source: str) -> dict[str, Any]:
    layers = layer_count(fields, source)
    flags = fields.get("no_rope_layers")  # 1 where there is rotary embedding
    interval = fields.get("no_rope_layer_interval", 4)
    if flags:
        interval = interval_of(flags, 0, "no_rope_layers", source)
    chunked = ["full_attention" if _without(i, interval) else "chunked_attention"
               for i in range(layers)]  # fmt: skip
    if fields.get("layer_types") not in (None, chunked):
        raise InputError(
            f"{source}: layer_types is {fields['layer_types']!r}, expected chunked attention "
            "where there is rotary embedding"
        )
    return {
        "use_hf_rope": False,  # pairs of neighbours, unlike the other families of the hub
        "no_rope_layer_interval": interval,
        "attention_chunk_size": fields.get("attention_chunk_size"),
        "use_qk_norm": bool(fields.get("use_qk_norm")),
        "qk_norm_affine": False,
        "qk_norm_before_rope": False,
        "qk_norm_without_rope": False,
        "attn_temperature_tuning": bool(fields.get("attn_temperature_tuning")),
        "floor_scale": fields.get("floor_scale", 8192),
        "attn_scale": fields.get("attn_scale", 0.1),
        "hidden_dim": number(fields, "intermediate_size_mlp", source),
    } | _experts(fields, layers, source)


def _without(index: int, interval: int | None) -> bool:
    return interval is not None and (index + 1) % interval == 0


def _experts(fields: Fields, layers: int, source: str) -> dict[str, Any]:
    step = fields.get("interleave_moe_layer_step", 1)
    mixed = fields.get("moe_layers")
    if mixed is not None:
        flags = [index in mixed for index in range(layers)]
        step = interval_of(flags, True, "moe_layers", source)
    if step is None:
        return {}
    return {
        "num_experts": number(fields, "num_local_experts", source),
        "num_activated_experts": number(fields, "num_experts_per_tok", source),
        "interleave_moe_layer_step": step,
        "moe_hidden_dim": number(fields, "intermediate_size", source),
    }


def _tensors(stored: LazyTensors, fields: Fields, source: str) -> LazyTensors:
    """Experts as [experts, N, K], gate and up apart: the hub has them as [experts, K, N], or,
    where they were quantized, one by one."""
    apart: dict[str, StoredTensor] = {}
    for name, tensor in _stacked(stored, source).stored.items():
        match = _EXPERTS.fullmatch(name)
        if not match:
            apart[name] = tensor
        elif match[2] == "down_proj":
            apart[f"{match[1]}.down_proj.weight"] = _turned(tensor, 0, tensor.shape[-1])
        else:
            half = tensor.shape[-1] // 2
            apart[f"{match[1]}.gate_proj.weight"] = _turned(tensor, 0, half)
            apart[f"{match[1]}.up_proj.weight"] = _turned(tensor, half, half)
    return LazyTensors(apart)


def _stacked(stored: LazyTensors, source: str) -> LazyTensors:
    """`...experts.0.gate_proj.weight` [N, K] and so on as `...experts.gate_proj.weight`."""
    stacked: dict[str, StoredTensor] = {}
    experts: dict[str, dict[int, StoredTensor]] = {}
    for name, tensor in stored.stored.items():
        match = _EXPERT.fullmatch(name)
        if match:
            experts.setdefault(f"{match[1]}.{match[3]}", {})[int(match[2])] = tensor
        else:
            stacked[name] = tensor
    for name, parts in experts.items():
        kinds = {(part.shape, part.dtype) for part in parts.values()}
        if sorted(parts) != list(range(len(parts))) or len(kinds) != 1:
            raise InputError(f"{source}: the experts of {name} are incomplete, or not alike")
        stacked[name] = _stack([parts[index] for index in range(len(parts))])
    return LazyTensors(stacked)


def _stack(parts: list[StoredTensor]) -> StoredTensor:
    shape = (len(parts), *parts[0].shape)
    return StoredTensor(shape, parts[0].dtype, lambda: torch.stack([part.load() for part in parts]))


def _turned(tensor: StoredTensor, first: int, count: int) -> StoredTensor:
    """Columns first .. first + count - 1 of [experts, K, N], as [experts, count, K]."""
    experts, rows, _ = tensor.shape

    def load() -> Any:
        return tensor.load()[..., first : first + count].transpose(1, 2).contiguous()

    return StoredTensor((experts, count, rows), tensor.dtype, load)


LLAMA4 = Family(_params, _NAMES, _tensors)
