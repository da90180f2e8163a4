"""The experts of a mixture in Hugging Face folders: one by one, as quantizers and older models
store them, or all in one tensor, as transformers 5 computes them."""

import re
from collections.abc import Mapping

import torch

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor, put_once
from quatrain.errors import InputError

_EXPERT = re.compile(r"(.*\.experts)\.(\d+)\.(\w+\.(?:weight|scales|zeros))")
FUSED = re.compile(r"(.*\.experts)\.(gate_up_proj|down_proj)")


def _stacked(stored: LazyTensors, source: str) -> LazyTensors:
    """`...experts.0.gate_proj.weight` [N, K] and so on as `...experts.gate_proj.weight` [experts,
    N, K].

    Raises `InputError`, naming `source`, if an expert is missing or unlike the others.
    """
    stacked: dict[str, StoredTensor] = {}
    experts: dict[str, dict[int, StoredTensor]] = {}
    for name, tensor in stored.stored.items():
        match = _EXPERT.fullmatch(name)
        if match:
            experts.setdefault(f"{match[1]}.{match[3]}", {})[int(match[2])] = tensor
        else:
            stacked[name] = tensor
    for name, parts in experts.items():
        _require_all_alike(name, parts, source)
        put_once(stacked, name, _stack([parts[index] for index in range(len(parts))]), source)
    return LazyTensors(stacked)


def _require_all_alike(name: str, parts: Mapping[int, StoredTensor], source: str) -> None:
    missing = sorted(set(range(max(parts))) - set(parts))
    if missing:
        raise InputError(
            f"{source}: the experts of {name} are incomplete: {missing[0]} is missing, but "
            f"{max(parts)} is there; download the model's missing files"
        )
    for index, part in parts.items():
        floating = part.dtype.is_floating_point and parts[0].dtype.is_floating_point
        if part.shape != parts[0].shape or not (floating or part.dtype == parts[0].dtype):
            raise InputError(
                f"{source}: the experts of {name} differ: expert {index} is {part}, expert 0 is "
                f"{parts[0]}; quantize the original model"
            )


def experts_apart(stored: LazyTensors, source: str) -> LazyTensors:
    """All experts' tensors as `...experts.{gate_proj,up_proj,down_proj}.weight` [experts, N, K], of
    folders that have them one by one, or as `...experts.gate_up_proj` [experts, 2 N, K] and
    `...experts.down_proj`.

    Raises `InputError`, naming `source`, if an expert is missing, unlike the others, or there both
    ways.
    """
    apart: dict[str, StoredTensor] = {}
    for name, tensor in _stacked(stored, source).stored.items():
        match = FUSED.fullmatch(name)
        if not match:
            put_once(apart, name, tensor, source)
        elif match[2] == "down_proj":
            put_once(apart, f"{name}.weight", tensor, source)
        else:
            if len(tensor.shape) != 3 or tensor.shape[1] % 2:
                raise InputError(
                    f"{source}: {name} has shape {list(tensor.shape)}, expected [experts, rows of "
                    "gate and then as many of up, columns]"
                )
            half = tensor.shape[1] // 2
            put_once(apart, f"{match[1]}.gate_proj.weight", _rows(tensor, 0, half), source)
            put_once(apart, f"{match[1]}.up_proj.weight", _rows(tensor, half, half), source)
    return LazyTensors(apart)


def _stack(parts: list[StoredTensor]) -> StoredTensor:
    """All in one, in float32 where they are in floating point of several types."""
    shape, dtypes = (len(parts), *parts[0].shape), {part.dtype for part in parts}
    dtype = dtypes.pop() if len(dtypes) == 1 else torch.float32
    return StoredTensor(
        shape, dtype, lambda: torch.stack([part.load().to(dtype) for part in parts])
    )


def _rows(tensor: StoredTensor, first: int, count: int) -> StoredTensor:
    shape = (tensor.shape[0], count, tensor.shape[2])
    return tensor.changed(lambda whole: whole[:, first : first + count], shape)
