"""Reads torchao's `IntxUnpackedToInt8Tensor`, what its int4 configs and its QAT convert make.

`Int8DynamicActivationIntxWeightConfig` and `IntxWeightOnlyConfig` (torchao 0.12 and later) hold a
weight [N, K] as qdata int8 [N, K], scale [N, G] and zero_point [N, G]. They are stored as
`F._weight_qdata`, `F._weight_scale` and `F._weight_zero_point` (`files/torchao_tensor.py`).
"""

import json
from collections.abc import Mapping
from typing import Any

import torch

from quatrain.checkpoint.files.torchao_tensor import BITS, DTYPE_BITS, EXPECTED, PARTS, TYPE
from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear
from quatrain.checkpoint.quantizers.groups import groups_of_rows
from quatrain.checkpoint.quantizers.quantizer import HEADERS, Parts, Quantizer, Settings
from quatrain.checkpoint.quantizers.stored_shapes import expect_shape, matrix_of
from quatrain.errors import InputError
from quatrain.linear.packing import is_int4


def _check(settings: Settings, metadata: Mapping[str, str], source: str) -> None:
    """A safetensors header names the type of each tensor."""
    for name, text in sorted(metadata.items()):  # a header has no order
        kind = _description(text).get("_type", "Tensor")
        if kind not in (TYPE, "Tensor"):
            raise InputError(f"{source}: {name} is a torchao {kind}, {EXPECTED}")


def _description(text: str) -> dict[str, Any]:
    """The object in `text`, or {}: metadata of other programs is theirs."""
    try:
        return json.loads(text) if text.startswith("{") else {}
    except (ValueError, RecursionError):
        return {}


def _read(parts: Parts, settings: Settings, name: str, source: str) -> GroupedLinear:
    """A linear or an embedding."""
    qdata, scale = parts["_weight_qdata"], parts["_weight_scale"]
    own_name = f"{name}._weight_qdata"
    rows, columns = matrix_of(torch.int8, qdata, own_name, "an int8 matrix", source)
    groups = groups_of_rows(scale, (rows, columns), f"{name}._weight_scale", source)
    zero_point = parts.get("_weight_zero_point")
    if zero_point is not None:
        expect_shape(zero_point, (rows, groups), f"{name}._weight_zero_point", source)
    return GroupedLinear(
        shape=(rows, columns),
        groups=groups,
        scales_dtype=scale.dtype,
        values=qdata.load,
        scales=scale.load,
        zeros=zero_point.load if zero_point is not None else None,
        bits=_bits(parts, settings, name),
    )


def _bits(parts: Parts, settings: Settings, name: str) -> int:
    """What the file says its values were made for. Where it does not, a layer's linears are int4;
    of an embedding and an output layer the values tell."""
    said = _description(settings.get(HEADERS, {}).get(f"{name}.weight", "")).get("_data", {})
    dtype = said.get("target_dtype") if isinstance(said, dict) else None
    stated = DTYPE_BITS.get(str(dtype.get("_data"))) if isinstance(dtype, dict) else None
    if BITS in parts:
        return int(parts[BITS].load())
    if stated is not None:
        return stated
    return 4 if "layers." in name or is_int4(parts["_weight_qdata"].load()) else 8


TORCHAO = Quantizer(
    name="torchao",
    required=PARTS[:2],
    optional=(*PARTS[2:], BITS),
    check=_check,
    read=_read,
    marked_by=PARTS[0],
)
