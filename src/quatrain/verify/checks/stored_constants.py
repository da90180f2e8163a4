"""Compares an XNNPACK program's quantized linears with the checkpoint's.

This module checks, without reading the delegates, whether the program stores the bytes of each
linear, alone or with the rows of the linears that `quatrain.export.xnnpack.joined_linears` lowers
with it; `reading_order` checks whether they are read in the right order.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch

from quatrain.backbone.model import Backbone
from quatrain.export.xnnpack.joined_linears import (
    GATE_AND_UP,
    QUERIES_KEYS_VALUES,
    JoinedLinear,
    are_alike,
)
from quatrain.export.xnnpack.linear_constants import constants_of
from quatrain.linear import Int4Linear, Int8DynActInt8WeightLinear
from quatrain.linear.int4 import freeze_weights
from quatrain.verify.checks.packed_constants import PackedCheck
from quatrain.verify.checks.stored_data import StoredData

_Quantized = Int4Linear | Int8DynActInt8WeightLinear
_Constants = dict[str, bytes]  # by what of a linear they are


def check_stored(
    stored: StoredData, backbone: Backbone, strict: bool, advance: Callable[[float], None]
) -> list[PackedCheck]:
    """Look for the constants of each quantized linear of `backbone` in what a program stores.

    `strict`: of a program of ours all are there. A program of another exporter may have none of
    these, not even of their sizes: it uses another form, which is not compared.
    """
    every = [*_single_linears(backbone), *_joined_linears(backbone)]
    problems: dict[str, str | None] = {}
    known: set[str] = set()
    for done, (names, linear) in enumerate(every, 1):
        if all(problems.get(name, "not looked for") for name in names):
            constants = _constants(linear)
            problem = _problem(stored, constants, names)
            if problem and not strict and isinstance(linear, Int4Linear):
                problem = _match_float16(stored, linear, names) and problem
            if problem and _is_dequantized(stored, linear, names[0]):
                problem = None
            if problem is None or all(stored.has_size(len(data)) for data in constants.values()):
                problems |= dict.fromkeys(names, problem)
                known.update(names)
            else:
                problems = dict.fromkeys(names, problem) | problems
        advance(done / len(every))
    if not strict and known != problems.keys() and all(problems.values()):
        return []
    return [PackedCheck(name, problem) for name, problem in problems.items()]


def _match_float16(stored: StoredData, linear: Int4Linear, names: list[str]) -> str | None:
    """As `_problem`, of a program that computes in float16, which rounds biases to it, and scales
    before XNNPACK's bfloat16. If these are stored, `linear` is left with them."""
    kept = {part: one for part in ("scales", "bias") if (one := getattr(linear, part)) is not None}
    for part, tensor in kept.items():
        setattr(linear, part, tensor.half().to(tensor.dtype))
    problem = _problem(stored, _constants(linear), names)
    if problem is None:
        freeze_weights(linear)
    else:
        for part, tensor in kept.items():
            setattr(linear, part, tensor)
    return problem


def _problem(stored: StoredData, constants: _Constants, names: list[str]) -> str | None:
    """What of the `constants` of those linears is not stored."""
    absent = [what for what, data in constants.items() if not stored.for_delegates(data, names[0])]
    rows = ", ".join(name.rpartition(".")[2] for name in names)
    where = f", in one matrix of {rows}," if len(names) > 1 else ""
    return f"its {' and '.join(absent)}{where} are not the checkpoint's" if absent else None


def _is_dequantized(stored: StoredData, linear: _Quantized | JoinedLinear, name: str) -> bool:
    """Whether its weight is stored in floating point, as one that no kernel takes is."""
    every: list[Any] = list(linear) if isinstance(linear, JoinedLinear) else [linear]
    weight = torch.cat([each.dequantized_weight().float() for each in every])
    return stored.for_delegates(weight.numpy().tobytes(), name)


def _single_linears(backbone: Backbone) -> list[tuple[list[str], _Quantized]]:
    modules = backbone.named_modules()
    return [([name], linear) for name, linear in modules if isinstance(linear, _Quantized)]


def _joined_linears(backbone: Backbone) -> Iterator[tuple[list[str], JoinedLinear]]:
    """(their names, as one) of all linears that may be one."""
    for path, module in backbone.named_modules():
        for members in (QUERIES_KEYS_VALUES, GATE_AND_UP):
            children = [getattr(module, name, None) for name in members]
            linears = [one for one in children if isinstance(one, _Quantized)]
            if len(linears) == len(members) and are_alike(linears):
                yield [f"{path}.{name}" for name in members], JoinedLinear(linears)


def _constants(linear: _Quantized | JoinedLinear) -> _Constants:
    parts = [data for _, data in constants_of(linear)]
    return dict(zip(("integers", "scales", "bias"), parts, strict=False))
