"""Reads int4 and int8 linears of NVIDIA's ModelOpt, `quant_algo` `W4A16_AWQ` and `W4A8_AWQ` (Lin et
al., 2023), `W8A16` and `W8A8_SQ_PER_CHANNEL`.

For a linear F with weight [N, K] and G groups, symmetric:
F.weight           uint8 [N/2, K]  int4 numbers: row 2n in the low bits, row 2n + 1 in the high ones
                   int8 [N, K]     of the algorithms of int8
F.weight_scale     float [N, G]    of int8 [N]
F.pre_quant_scale  float [K]       if there is one, F's inputs are multiplied by it
weight = scale * number. Source: `to_quantized_weight` and `pack_int4_in_uint8` in ModelOpt's
`export/quant_utils.py`. How a runtime rounds activations, and with W4A8_AWQ dequantized weights, to
FP8 or int8 is not read (F.input_scale, F.weight_scale_2).

The norm before most linears contains what their inputs are multiplied by. In others the weight is
multiplied instead, which makes it one in floating point, to be rounded again.
"""

from typing import Any

import torch

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, MadeByRows, StoredTensor
from quatrain.checkpoint.quantizers.dequantized import dequantized
from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear
from quatrain.checkpoint.quantizers.groups import groups_of_rows
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.checkpoint.quantizers.quantizer import Quantizer, Settings
from quatrain.errors import InputError

_ALGORITHMS = {  # and what they round activations to as the model runs
    "W4A16_AWQ": "",
    "W4A8_AWQ": "float8",
    "W8A16": "",
    "W8A8_SQ_PER_CHANNEL": "int8, with calibrated scales,",
}
OF_INPUTS = ".pre_quant_scale"
_PARTS = ("weight", "weight_scale")


def _check(settings: Settings, source: str) -> None:
    other = next((one for one in _stated(settings) if one not in _ALGORITHMS), None)
    if other is not None:
        raise InputError(
            f"{source}: ModelOpt quantized it with quant_algo {other[:80]!r}, expected "
            f"{', '.join(_ALGORITHMS)}, or algorithms of FP8 and FP4 alone; run `quatrain quantize "
            "MODEL -o DIR` on the original model, in floating point"
        )


def _stated(settings: Settings) -> list[str]:
    """The algorithms that `settings` name, of single layers too."""
    layers = settings.get("quantized_layers")
    of_layers: list[Any] = list(layers.values()) if isinstance(layers, dict) else [settings]
    return [str(one.get("quant_algo") if isinstance(one, dict) else one) for one in of_layers]


def activations_of_modelopt(settings: Any) -> list[str]:
    """To what `settings`, if they are ModelOpt's of integers, say that activations are rounded as
    the model runs."""
    if not isinstance(settings, dict) or settings.get("quant_method") != MODELOPT.name:
        return []
    found = (_ALGORITHMS.get(one, "") for one in _stated(settings))
    return list(dict.fromkeys(kind for kind in found if kind))


def _prepare(stored: LazyTensors, settings: Settings, source: str) -> LazyTensors:
    """`stored` with those linears in floating point whose inputs are multiplied."""
    tensors = dict(stored.stored)
    for name in stored:
        module, names = name.removesuffix(OF_INPUTS), {}
        if module != name:
            names = {part: f"{module}.{part}" for part in _PARTS if f"{module}.{part}" in tensors}
        if len(names) < len(_PARTS):
            continue
        parts = Parts({part: tensors.pop(names[part]) for part in names}, module, source)
        weight = dequantized(_read(parts, settings))
        tensors[names["weight"]] = with_inputs_scaled(weight, tensors.pop(name), name, source)
        for part in MODELOPT.optional:
            tensors.pop(f"{module}.{part}", None)
    return LazyTensors(tensors)


def with_inputs_scaled(
    weight: StoredTensor, factors: StoredTensor, name: str, source: str
) -> StoredTensor:
    """`weight` [N, K], times `factors` [K], which the tensor `name` of the folder `source` holds.

    Raises `InputError` if they do not fit.
    """
    if factors.shape != weight.shape[1:] or not factors.dtype.is_floating_point:
        raise InputError(
            f"{source}: {name} is {factors}, expected one floating-point number for each input "
            f"feature, {list(weight.shape[1:])}; download it again"
        )

    def rows(some: slice) -> torch.Tensor:
        return LazyTensors({name: weight}).rows_of(name)(some).float() * factors.load().float()

    return StoredTensor(weight.shape, torch.float32, MadeByRows(weight.shape, rows))


def _read(parts: Parts, settings: Settings) -> GroupedLinear:
    weight, scale = parts["weight"], parts["weight_scale"]
    if weight.dtype == torch.int8:
        shape = parts.matrix("weight", torch.int8, "an int8 matrix")
        parts.expect_shape("weight_scale", shape[:1], floating=True)
        return GroupedLinear(
            shape=shape,
            groups=1,
            scales_dtype=scale.dtype,
            values=weight.load,
            scales=lambda: scale.load()[:, None],
            bits=8,
        )
    expected = (
        "a uint8 matrix of two int4 numbers each, or int8 numbers; quantize the original model"
    )
    packed, columns = parts.matrix("weight", torch.uint8, expected)
    shape = 2 * packed, columns
    return GroupedLinear(
        shape=shape,
        groups=groups_of_rows(parts, "weight_scale", shape),
        scales_dtype=scale.dtype,
        values=lambda: _numbers(weight),
        scales=scale.load,
    )


def _numbers(weight: StoredTensor) -> torch.Tensor:
    """uint8 [N / 2, K] to int8 [N, K]."""
    octets = weight.load().view(torch.int8)
    pairs = torch.stack((octets << 4 >> 4, octets >> 4), 1)  # with their signs
    return pairs.flatten(0, 1)


MODELOPT = Quantizer(
    name="modelopt",
    required=_PARTS,
    optional=("input_scale", "weight_scale_2"),
    check=_check,
    read=_read,
    prepare=_prepare,
)
