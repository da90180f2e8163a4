"""Reads MLX's affine quantization (`mlx.nn.quantize`, what mlx-lm writes, and transformers for
Metal).

For a matrix F [N, K] of b bits in G groups, an embedding or output layer too:
F.weight uint32 [N, K * b / 32]   the numbers one after the other, the first in the low bits
F.scales float  [N, G]
F.biases float  [N, G]            transformers calls them F.qbiases
weight = scale * number + bias, the numbers 0 to 2^b - 1: a zero point of -bias / scale, which is
rarely a whole number, so nearly every group has to be requantized.

config.json's `quantization` (of transformers `quantization_config`, quant_method `metal`) states
group_size and bits, and MLX's exceptions by module name.
"""

from dataclasses import replace
from typing import Any

import torch

from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear
from quatrain.checkpoint.quantizers.groups import groups_of_rows
from quatrain.checkpoint.quantizers.int32_packing import unpack_words
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.checkpoint.quantizers.quantizer import HEADERS, Quantizer, Settings
from quatrain.errors import InputError

_BITS = (1, 2, 3, 4, 5, 6, 8)
_NO_STEP = 1e-12  # in place of 0, of a group of equal weights: it leaves the bias alone


def _check(settings: Settings, source: str) -> None:
    modules = (value for name, value in settings.items() if name != HEADERS)
    for of_module in (settings, *(value for value in modules if isinstance(value, dict))):
        mode = of_module.get("mode", "affine")
        if mode != "affine":
            raise InputError(
                f"{source}: is an MLX model in mode {mode!r}, expected 'affine'; quantize the "
                "original model"
            )


def _read(parts: Parts, settings: Settings) -> GroupedLinear:
    # AutoRound states exceptions in text_config by the names that the text model has by itself.
    names = (parts.name, parts.name.removeprefix("language_model."))
    own = next((settings[name] for name in names if name in settings), None)
    stated = {**settings, **(own if isinstance(own, dict) else {})}
    bits, size = stated.get("bits"), stated.get("group_size")
    if not isinstance(bits, int) or bits not in _BITS:
        raise InputError(
            f"{parts.source}: {parts.name} has {bits!r} bits by config.json's `quantization`, "
            f"expected one of {_BITS}; use the config.json that was written with the model"
        )
    weight, scales = parts["weight"], parts["scales"]
    rows, columns = _shape(parts, bits, size)
    groups = groups_of_rows(parts, "scales", (rows, columns))
    biases = "biases" if "biases" in parts else "qbiases"
    parts.expect_shape(biases, (rows, groups), floating=True)
    middle = 1 << (bits - 1)

    def steps() -> torch.Tensor:
        scale = scales.load().float()
        return torch.where(scale == 0, _NO_STEP, scale)

    def zeros() -> torch.Tensor:
        return -parts[biases].load().float() / steps() - middle

    return GroupedLinear(
        shape=(rows, columns),
        groups=groups,
        scales_dtype=torch.float32,
        values=lambda: unpack_words(weight.load().view(torch.int32), bits, columns),
        scales=steps,
        zeros=zeros,
        bits=bits,
    )


def _shape(parts: Parts, bits: int, group_size: Any) -> tuple[int, int]:
    """(N, K) of the weight, whose numbers have `bits`; `group_size` is that of config.json."""
    expected = f"a uint32 matrix of {bits}-bit numbers"
    rows, words = parts.matrix("weight", torch.uint32, expected)
    scales = parts["scales"]
    groups = scales.shape[1] if len(scales.shape) == 2 else 0
    if isinstance(group_size, int) and group_size * groups:
        found = words * 32 / (group_size * groups)
        if found != bits:
            raise InputError(
                f"{parts.source}: {parts.name} has {found:g} bits in groups of {group_size}, but "
                f"config.json's `quantization` says {bits}; use the config.json that was written "
                "with the model"
            )
    if words * 32 % bits:
        raise InputError(f"{parts.called('weight')} is {parts['weight']}, expected {expected}")
    return rows, words * 32 // bits


MLX = Quantizer(
    name="mlx",
    required=("weight", "scales", "biases"),
    check=_check,
    read=_read,
    marked_by="biases",
    asymmetric=True,
)
METAL = replace(
    MLX,
    name="metal",
    required=("weight", "scales", "qbiases"),
    marked_by="qbiases",
)
