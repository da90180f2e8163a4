"""Reads torchao's `IntxUnpackedToInt8Tensor`, which its int4 configs and its QAT conversion write.

`Int8DynamicActivationIntxWeightConfig` and `IntxWeightOnlyConfig` (torchao 0.12 and later) hold a
weight [N, K] as qdata int8 [N, K], scale [N, G] and zero_point [N, G]. They are stored as
`F._weight_qdata`, `F._weight_scale` and `F._weight_zero_point` (`files/torchao_tensor.py`).
So is the `Int8Tensor` of `Int8WeightOnlyConfig` and `Int8DynamicActivationInt8WeightConfig`, of 8
bits with one scale per row.
"""

import json
from typing import Any

import torch

from quatrain.checkpoint.files.torchao_tensor import (
    BITS,
    DTYPE_BITS,
    EXPECTED,
    INT8,
    PARTS,
    TYPE,
)
from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear
from quatrain.checkpoint.quantizers.groups import groups_of_rows
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.checkpoint.quantizers.quantizer import HEADERS, Quantizer, Settings
from quatrain.errors import InputError
from quatrain.linear.packing import is_int4


def _check(settings: Settings, source: str) -> None:
    """A safetensors header names the type of each tensor."""
    for name, text in sorted(settings[HEADERS].items()):  # a header has no order
        kind = _description(text).get("_type", "Tensor")
        if kind not in (TYPE, INT8, "Tensor"):
            raise InputError(f"{source}: {name} is a torchao {kind}, {EXPECTED}")


def _description(text: str) -> dict[str, Any]:
    """The object in `text`, or {}: metadata of other programs is theirs."""
    try:
        return json.loads(text) if text.startswith("{") else {}
    except (ValueError, RecursionError):
        return {}


def _read(parts: Parts, settings: Settings) -> GroupedLinear:
    """A linear or an embedding."""
    qdata, scale = parts["_weight_qdata"], parts["_weight_scale"]
    rows, columns = parts.matrix("_weight_qdata", torch.int8, "an int8 matrix")
    groups = groups_of_rows(parts, "_weight_scale", (rows, columns))
    zero_point = parts.get("_weight_zero_point")
    if zero_point is not None:
        parts.expect_shape("_weight_zero_point", (rows, groups))
    return GroupedLinear(
        shape=(rows, columns),
        groups=groups,
        scales_dtype=scale.dtype,
        values=qdata.load,
        scales=scale.load,
        zeros=zero_point.load if zero_point is not None else None,
        bits=_bits(parts, settings),
    )


def _bits(parts: Parts, settings: Settings) -> int:
    """What the file says its values were made for. Where it does not, a layer's linears are int4;
    of an embedding and an output layer the values tell."""
    description = _description(settings[HEADERS].get(f"{parts.name}.weight", ""))
    if description.get("_type") == INT8:
        return 8
    said = description.get("_data", {})
    dtype = said.get("target_dtype") if isinstance(said, dict) else None
    stated = DTYPE_BITS.get(str(dtype.get("_data"))) if isinstance(dtype, dict) else None
    if BITS in parts:
        return int(parts[BITS].load())
    if stated is not None:
        return stated
    return 4 if "layers." in parts.name or is_int4(parts["_weight_qdata"].load()) else 8


TORCHAO = Quantizer(
    name="torchao",
    required=PARTS[:2],
    optional=(*PARTS[2:], BITS),
    check=_check,
    read=_read,
    marked_by=PARTS[0],
)
