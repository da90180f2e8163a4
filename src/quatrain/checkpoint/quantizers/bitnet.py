"""Reads ternary models (BitNet, Ma et al., 2024) as transformers packs them, and those that it
makes ternary as they run.

For a packed linear F [N, K]:
F.weight        uint8 [N / 4, K]   numbers of 2 bits: row r in the lowest, r + N / 4 in the next
F.weight_scale  float [1]
weight = (number - 1) / scale, of transformers' AutoBitLinear (number - 1) * scale.

Of an AutoBitLinear that is made ternary as it runs ("online") F.weight is float [N, K]; its scale
is the mean of its magnitudes. Source: `WeightQuant` of transformers' `integrations/bitnet.py`.

Activations are rounded to int8 by token as it runs, symmetrically; 8da4w has a zero point.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.checkpoint.quantizers.quantizer import Quantizer, Settings
from quatrain.errors import InputError

_CLASSES = ("bitlinear", "autobitlinear")
_PACKED = 4  # rows in one
_SMALLEST_MEAN = 1e-5
_OUTPUT = "lm_head"  # is no linear of these, if the settings do not say which are none


def _check(settings: Settings, source: str) -> None:
    kind = settings.get("linear_class", _CLASSES[0])
    if kind not in _CLASSES:
        raise InputError(
            f"{source}: its linear_class is {str(kind)[:80]!r}, expected {' or '.join(_CLASSES)}; "
            "use the config.json that was written with the model"
        )
    if settings.get("use_rms_norm"):
        raise InputError(
            f"{source}: its linears normalize their inputs (use_rms_norm), which this backbone "
            "does not implement; use another model"
        )


def is_ternary_at_run_time(settings: Any) -> bool:
    """Whether `settings` say that weights in floating point are made ternary as the model runs."""
    if not isinstance(settings, Mapping) or settings.get("quant_method") != "bitnet":
        return False
    stated = settings.get("linear_class"), settings.get("quantization_mode")
    return stated == (_CLASSES[1], "online")


def notes_on_ternary(settings: Any) -> tuple[str, ...]:
    """A note on activations, if `settings` are BitNet's."""
    if not isinstance(settings, Mapping) or settings.get("quant_method") != "bitnet":
        return ()
    return (
        "BitNet rounds what a linear reads to int8 token by token, in steps of its largest "
        "magnitude / 127. A program in 8da4w rounds it to int8 with a zero point, in steps that "
        "are as large or smaller; a weight-only program does not round it. Weights are the same.",
    )


def _prepare(stored: LazyTensors, settings: Settings, source: str) -> LazyTensors:
    """`stored` with weights that the model makes ternary as it runs as int8, with their scale."""
    if not is_ternary_at_run_time(settings):
        return stored
    tensors = dict(stored.stored)
    for name, tensor in stored.stored.items():
        module = name.removesuffix(".weight")
        if module == name or len(tensor.shape) != 2 or not _is_linear(module, settings, source):
            continue
        tensors[name] = tensor.changed(_ternary, dtype=torch.int8)
        tensors[f"{module}.weight_scale"] = tensor.changed(_mean, (1,), torch.float32)
    if f"{_OUTPUT}.weight" not in stored and _is_linear(_OUTPUT, settings, source):
        raise InputError(
            f"{source}: its modules_to_not_convert does not name {_OUTPUT}, which is tied to the "
            "embedding: a table that is ternary as an output only is not supported; use the "
            "config.json that was written with the model"
        )
    return LazyTensors(tensors)


def _is_linear(module: str, settings: Settings, source: str) -> bool:
    """Whether the matrix of `module` is made ternary: as in transformers, not those that
    modules_to_not_convert names from their first part on, as patterns, or by their end."""
    if module.endswith("embed_tokens"):
        return False
    named = settings.get("modules_to_not_convert")
    if named is None:
        named = [_OUTPUT]
    try:
        if not isinstance(named, list) or not all(isinstance(key, str) for key in named):
            raise ValueError
        patterns = [
            re.compile(rf"(?:{key})(?:(?<=\.)|(?=\.|$))|.*{re.escape(key)}$") for key in named
        ]
    except (ValueError, re.error):
        raise InputError(
            f"{source}: its modules_to_not_convert is {str(named)[:80]}, expected a list of names "
            "of modules; use the config.json that was written with the model"
        ) from None
    return not any(pattern.match(module) for pattern in patterns)


def _mean(weight: torch.Tensor) -> torch.Tensor:
    return weight.float().abs().mean().clamp(min=_SMALLEST_MEAN).view(1)


def _ternary(weight: torch.Tensor) -> torch.Tensor:
    return (weight.float() * (1.0 / _mean(weight))).round_().clamp_(-1, 1).to(torch.int8)


def _read(parts: Parts, settings: Settings) -> GroupedLinear:
    weight, scale = parts["weight"], parts["weight_scale"]
    if is_ternary_at_run_time(settings) and weight.dtype == torch.int8:
        rows, columns = weight.shape
        return GroupedLinear(
            shape=(rows, columns),
            groups=1,
            scales_dtype=torch.float32,
            values=weight.load,
            scales=lambda: scale.load().expand(rows, 1).contiguous(),
            bits=2,
        )
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
    prepare=_prepare,
)
