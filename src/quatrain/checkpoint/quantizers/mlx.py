"""Reads MLX's affine quantization (`mlx.nn.quantize`, what mlx-lm writes, and transformers for
Metal).

For a matrix F [N, K] of b bits in G groups, an embedding or output layer too:
F.weight uint32 [N, K * b / 32]   the numbers one after the other, the first in the low bits
F.scales float  [N, G]
F.biases float  [N, G]            transformers calls them F.qbiases
weight = scale * number + bias, the numbers 0 to 2^b - 1: a zero point of -bias / scale, which is
rarely a whole number, so nearly every group has to be requantized.

Matrices in its floating-point modes have no biases; if a model has some of those, all of it is read
in floating point.

config.json's `quantization` (of transformers `quantization_config`, quant_method `metal`) states
group_size and bits, and MLX's exceptions by module name.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.quantizers.dequantized import dequantized
from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear
from quatrain.checkpoint.quantizers.groups import groups_of_rows
from quatrain.checkpoint.quantizers.int32_packing import unpack_words
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.checkpoint.quantizers.quantizer import HEADERS, Quantizer, Settings
from quatrain.errors import InputError

FLOATING_MODES = ("mxfp4", "nvfp4", "mxfp8")
_BITS = (1, 2, 3, 4, 5, 6, 8)
_TEXT_MODEL = "language_model."
_NO_STEP = 1e-12  # in place of 0, of a group of equal weights: it leaves the bias alone


def _check(settings: Settings, source: str) -> None:
    modules = (value for name, value in settings.items() if name != HEADERS)
    for of_module in (settings, *(value for value in modules if isinstance(value, dict))):
        mode = of_module.get("mode", "affine")
        if mode != "affine":
            raise InputError(
                f"{source}: is an MLX model in mode {mode!r}, expected 'affine', "
                f"{', '.join(map(repr, FLOATING_MODES))}; quantize the original model"
            )


def _read(parts: Parts, settings: Settings) -> GroupedLinear:
    # AutoRound states exceptions in text_config by the names that the text model has by itself; a
    # prefix that all tensors of a file have is not part of their names here, but of the settings'.
    names = (parts.name, parts.name.removeprefix(_TEXT_MODEL), _TEXT_MODEL + parts.name)
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


def without_affine(
    stored: LazyTensors, settings: Settings, source: str, called: Mapping[str, str]
) -> LazyTensors:
    """`stored`, of a model of which other matrices are in a floating-point mode, with the affine
    ones in floating point. `called`: the name of a tensor in the files and `settings`, if it
    differs. Raises `InputError`, naming `source`, if parts do not fit one another."""
    tensors = dict(stored.stored)
    for name in stored:
        module = name.removesuffix(".biases")
        names = {part: f"{module}.{part}" for part in MLX.required}
        if module == name or not stored.stored.keys() >= set(names.values()):
            continue
        parts = {part: tensors.pop(each) for part, each in names.items()}
        own = called.get(name, name).removesuffix(".biases")
        tensors[f"{module}.weight"] = dequantized(_read(Parts(parts, own, source), settings))
    return LazyTensors(tensors)


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
