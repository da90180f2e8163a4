"""Reads AutoRound's MX_INT4 linears (data_type `mx_int`): symmetric int4, scales are powers of 2.

For a linear F with weight [N, K] in groups of 32:
F.weight_packed  uint8 [N, K/2]   two numbers, the first in the low bits: a sign (8) and a magnitude
F.weight_scale   uint8 [N, K/32]  an exponent + 127
weight = number / 4 * 2 ** exponent. Source: `pack_int4_to_uint8` in AutoRound's
`export/export_to_autoround/qlinear_int.py`.

Its runtime rounds activations in the same way, which programs do not.
"""

from typing import Any

import torch

from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.checkpoint.quantizers.quantizer import Quantizer, Settings
from quatrain.checkpoint.quantizers.rotated import refuse_rotated
from quatrain.errors import InputError

DATA_TYPE = "mx_int"
_GROUP = 32
_SIGN, _BIAS, _STEP = 8, 127, 0.25


def _check(settings: Settings, source: str) -> None:
    if settings.get("bits") != 4 or settings.get("group_size") != _GROUP:
        raise InputError(
            f"{source}: its quantization_config has bits {settings.get('bits')!r} and group_size "
            f"{settings.get('group_size')!r} of data_type {DATA_TYPE!r}, expected 4 and {_GROUP}; "
            "quantize the original model"
        )
    refuse_rotated(settings, source)


def activations_of_mx_int(settings: Any) -> list[str]:
    """To what `settings`, if they are MX_INT4's, say that activations are rounded as the model
    runs."""
    if not isinstance(settings, dict) or settings.get("data_type") != DATA_TYPE:
        return []
    bits = settings.get("act_bits")
    return [f"{settings.get('act_data_type')}{bits}"] if isinstance(bits, int) and bits < 16 else []


def _read(parts: Parts, settings: Settings) -> GroupedLinear:
    expected = "a uint8 matrix of two int4 numbers each; quantize the original model"
    rows, octets = parts.matrix("weight_packed", torch.uint8, expected)
    scale, groups = parts["weight_scale"], 2 * octets // _GROUP
    parts.matrix("weight_scale", torch.uint8, "a uint8 matrix of exponents")
    parts.expect_shape("weight_scale", (rows, groups))
    if 2 * octets != groups * _GROUP:
        raise InputError(
            f"{parts.called('weight_packed')} is {parts['weight_packed']}, expected rows of groups "
            f"of {_GROUP} numbers; quantize the original model"
        )
    return GroupedLinear(
        shape=(rows, 2 * octets),
        groups=groups,
        scales_dtype=torch.float32,
        values=lambda: _numbers(parts["weight_packed"].load()),
        scales=lambda: (scale.load().float() - _BIAS).exp2() * _STEP,
    )


def _numbers(packed: torch.Tensor) -> torch.Tensor:
    """uint8 [N, K / 2] to int8 [N, K]."""
    codes = torch.stack((packed & 15, packed >> 4), -1).flatten(1).to(torch.int8)
    magnitudes = codes & (_SIGN - 1)
    return torch.where(codes < _SIGN, magnitudes, -magnitudes)


MX_INT = Quantizer(
    name="auto-round (mx_int)",
    required=("weight_packed", "weight_scale"),
    check=_check,
    read=_read,
)
