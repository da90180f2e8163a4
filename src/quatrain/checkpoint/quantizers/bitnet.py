"""Reads ternary models (BitNet, Ma et al., 2024) as transformers packs them.

For a linear F [N, K]:
F.weight        uint8 [N / 4, K]   numbers of 2 bits: row r in the lowest, r + N / 4 in the next
F.weight_scale  float [1]
weight = (number - 1) / scale, of transformers' AutoBitLinear (number - 1) * scale.

Activations are rounded to int8 by token as it runs, symmetrically; 8da4w has a zero point.
"""

import torch

from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.checkpoint.quantizers.quantizer import Quantizer, Settings
from quatrain.errors import InputError

_CLASSES = ("bitlinear", "autobitlinear")
_PACKED = 4  # rows in one


def _check(settings: Settings, source: str) -> None:
    kind = settings.get("linear_class", _CLASSES[0])
    if kind not in _CLASSES:
        raise InputError(
            f"{source}: its linear_class is {str(kind)[:80]!r}, expected {' or '.join(_CLASSES)}; "
            "use the config.json that was written with the model"
        )
    if kind == _CLASSES[1] and settings.get("quantization_mode") == "online":
        raise InputError(
            f"{source}: its weights are in floating point and would be made ternary at run time "
            "(quantization_mode 'online'), which programs do not support; use the packed version "
            "of the model"
        )
    if settings.get("use_rms_norm"):
        raise InputError(
            f"{source}: its linears normalize their inputs (use_rms_norm), which this backbone "
            "does not implement; use another model"
        )


def _read(parts: Parts, settings: Settings) -> GroupedLinear:
    weight, scale = parts["weight"], parts["weight_scale"]
    expected = "a uint8 matrix of packed ternary numbers; use the packed version of the model"
    packed, columns = parts.matrix("weight", torch.uint8, expected)
    if tuple(scale.shape) not in ((), (1,)) or not scale.dtype.is_floating_point:
        raise InputError(
            f"{parts.called('weight_scale')} is {scale}, expected one floating-point number; "
            "download it again"
        )
    rows = packed * _PACKED
    divides = settings.get("linear_class", _CLASSES[0]) == _CLASSES[0]

    def scales() -> torch.Tensor:
        one = scale.load().float()
        return (1 / one if divides else one).expand(rows, 1).contiguous()

    return GroupedLinear(
        shape=(rows, columns),
        groups=1,
        scales_dtype=torch.float32,
        values=lambda: _numbers(weight),
        scales=scales,
        bits=2,
    )


def _numbers(weight: StoredTensor) -> torch.Tensor:
    """uint8 [N / 4, K] to int8 [N, K]."""
    packed = weight.load()
    return torch.cat([(packed >> 2 * row & 3).to(torch.int8) - 1 for row in range(_PACKED)])


BITNET = Quantizer(
    name="bitnet",
    required=("weight_scale", "weight"),
    check=_check,
    read=_read,
)
