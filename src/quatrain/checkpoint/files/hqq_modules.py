"""The state dict in HQQ's own file (`qmodel.pt`), which holds a dict for each module.

A rounded linear's has its numbers as W_q beside what says how they were rounded, of older releases
in a dict `meta` (`serialize_weights` of hqq's `models/base.py`).
`quatrain.checkpoint.hugging_face.tensors.hqq` reads them under the names that transformers gives
them.
"""

from pathlib import Path
from typing import Any

import torch

from quatrain.errors import InputError

NUMBERS, OTHER_PARTS = "W_q", ("scale", "zero", "shape", "axis", "group_size", "packing")
_ROUNDED = ("scale_q", "zero_q")


def without_modules(path: Path, content: dict[Any, Any]) -> dict[Any, Any]:
    """`content`, by tensor name if it is of such a file, else as it is. Raises `InputError`, naming
    `path`, if scales or zero points are rounded too."""
    if not any(isinstance(state, dict) and NUMBERS in state for state in content.values()):
        return content
    found: dict[Any, Any] = {}
    for module, state in content.items():
        if not isinstance(state, dict):
            found[module] = state
            continue
        meta = state.get("meta")
        parts = state | (meta if isinstance(meta, dict) else {})
        if any(part in parts for part in _ROUNDED):
            raise InputError(
                f"{path}: the scales or zero points of {module} are quantized too, which is not "
                "supported for HQQ; quantize the original model"
            )
        named = (NUMBERS, *OTHER_PARTS, "bias") if NUMBERS in state else tuple(state)
        for part in named:
            if parts.get(part) is not None:
                found[f"{module}.{part}"] = _as_tensor(parts[part])
    return found


def _as_tensor(value: Any) -> Any:
    if isinstance(value, str):
        return torch.tensor([*value.encode()], dtype=torch.uint8)
    if isinstance(value, int | tuple):
        return torch.tensor(value)
    return value
