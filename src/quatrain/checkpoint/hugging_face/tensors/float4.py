"""Matrices in FP4 (E2M1) or FP6 (E2M3), and MLX's in FP8, as FP8 with scales in float32.

| of | F [N, K] | scales of F |
|---|---|---|
| `compressed-tensors`, `auto-round` | F.weight_packed uint8 [N, K / 2] | F.weight_scale, divided by F.weight_global_scale |
| `compressed-tensors` in MXFP6 | F.weight_packed uint8 [N, 3 K / 4] | F.weight_scale |
| `modelopt` | F.weight uint8 [N, K / 2] | F.weight_scale times F.weight_scale_2 |
| `mlx` | F.weight uint32 [N, K / 8], in FP8 [N, K / 4] | F.scales uint8 |

The first of two numbers lies in the low bits. NVFP4 has FP8 scales for 16 columns each, and one for
the matrix outside MLX; MXFP4 and MXFP8 have powers of 2 for 32 columns, which tells MLX's formats
apart.
"""  # noqa: E501

import math

import torch

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, MadeByRows, StoredTensor
from quatrain.errors import InputError

_POSITIVE = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
_NUMBERS = torch.cat([_POSITIVE, -_POSITIVE]).to(torch.float8_e4m3fn).view(torch.uint8)
_OCTETS = torch.arange(256)
_PAIRS = torch.stack((_NUMBERS[_OCTETS & 15], _NUMBERS[_OCTETS >> 4]), 1).view(torch.int16)[:, 0]
_PACKED, _SCALES = ("weight_packed", "weight"), ("weight_scale", "scales")
_ABOVE, _BELOW = "weight_scale_2", "weight_global_scale"
# How many of MLX's words share a scale.
_IN_MXFP8, _IN_NVFP4 = 8, 2
# MXFP6 (E2M3) has 32 numbers in 24 octets; each of its numbers is one of FP8 (E4M3), too.
_IN_MXFP6 = 24
_EIGHTHS = torch.tensor([*range(8), *((8 + m) << e for e in range(3) for m in range(8))])
_NUMBERS_OF_6 = torch.cat([_EIGHTHS, -_EIGHTHS.float()]).div(8).to(torch.float8_e4m3fn)


def as_float8(stored: LazyTensors, source: str) -> tuple[LazyTensors, set[str]]:
    """(`stored` with each matrix F in FP4 or FP6, or in MLX's words, as F.weight and
    F.weight_scale; of "FP4", "FP6" and "FP8", what these are in). Raises `InputError`, naming
    `source`, if a matrix' own scale is missing or no single number."""
    tensors, kinds = dict(stored.stored), set[str]()
    for name, packed in stored.stored.items():
        module, _, part = name.rpartition(".")
        scales = next((f"{module}.{one}" for one in _SCALES if f"{module}.{one}" in tensors), None)
        is_packed = packed.dtype in (torch.uint8, torch.uint32) and len(packed.shape) == 2
        if part not in _PACKED or not is_packed or scales is None:
            continue
        of_groups = tensors.pop(scales)
        a_scale = packed.shape[1] // (math.prod(of_groups.shape[1:]) or 1)
        words = a_scale if packed.dtype == torch.uint32 else 0
        in_float6 = packed.dtype == torch.uint8 and a_scale == _IN_MXFP6
        above, below = (_pop_number(tensors, f"{module}.{one}", source) for one in (_ABOVE, _BELOW))
        in_nvfp4 = packed.dtype == torch.uint8 and of_groups.dtype == torch.float8_e4m3fn
        if in_nvfp4 and above is None and below is None:
            raise InputError(
                f"{source}: {name} is in NVFP4, but {module}.{_BELOW} or {module}.{_ABOVE} is "
                "missing; download the model's missing files"
            )
        del tensors[name]
        tensors[f"{module}.weight"] = (
            _numbers_of_6(packed) if in_float6 else _numbers(packed, in_float8=words == _IN_MXFP8)
        )
        octets = of_groups.dtype == torch.uint8
        kind = torch.float8_e4m3fn if octets and words == _IN_NVFP4 else of_groups.dtype
        tensors[f"{module}.weight_scale"] = _product(of_groups, kind, above, below)
        kinds.add("FP8" if words == _IN_MXFP8 else "FP6" if in_float6 else "FP4")
    return LazyTensors(tensors), kinds


def factors_of(scales: torch.Tensor) -> torch.Tensor:
    """The values of `scales`; uint8 scales are exponents."""
    return (scales.float() - 127).exp2() if scales.dtype == torch.uint8 else scales.float()


def _pop_number(tensors: dict[str, StoredTensor], name: str, source: str) -> StoredTensor | None:
    """The one number `name`, which is removed from `tensors`."""
    number = tensors.pop(name, None)
    if number is not None and (math.prod(number.shape) != 1 or not number.dtype.is_floating_point):
        raise InputError(
            f"{source}: {name} is {number}, expected one number; quantize the original model"
        )
    return number


def _product(
    scales: StoredTensor, kind: torch.dtype, above: StoredTensor | None, below: StoredTensor | None
) -> StoredTensor:
    """`scales`, which are of `kind`, times what is `above` and divided by what is `below`."""

    def load() -> torch.Tensor:
        product = factors_of(scales.load().view(kind))
        if above is not None:
            product = product * above.load().float()
        return product if below is None else product / below.load().float()

    read = kind.is_floating_point or kind == torch.uint8
    return StoredTensor(scales.shape, torch.float32 if read else kind, load)


def _numbers(packed: StoredTensor, in_float8: bool) -> StoredTensor:
    """The numbers in `packed`: one in each octet `in_float8`, else two in FP4."""
    octets = packed.shape[1] * packed.dtype.itemsize
    shape = (packed.shape[0], octets if in_float8 else 2 * octets)

    def rows(some: slice) -> torch.Tensor:
        found = packed.load()[some].contiguous().view(torch.uint8)
        return (found if in_float8 else _PAIRS[found.int()]).view(torch.float8_e4m3fn)

    return StoredTensor(shape, torch.float8_e4m3fn, MadeByRows(shape, rows))


def _numbers_of_6(packed: StoredTensor) -> StoredTensor:
    """The numbers in `packed`, four in three octets, the first in the lowest bits."""
    shape = (packed.shape[0], packed.shape[1] // 3 * 4)

    def rows(some: slice) -> torch.Tensor:
        low, middle, high = packed.load()[some].int().unflatten(1, (-1, 3)).unbind(-1)
        word = low | middle << 8 | high << 16
        codes = torch.stack([word >> shift & 63 for shift in (0, 6, 12, 18)], -1)
        return _NUMBERS_OF_6.view(torch.uint8)[codes.flatten(1)].view(torch.float8_e4m3fn)

    return StoredTensor(shape, torch.float8_e4m3fn, MadeByRows(shape, rows))
