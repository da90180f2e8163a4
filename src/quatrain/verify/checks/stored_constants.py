"""An XNNPACK program's constants against the checkpoint's integers and scales, linear by linear.

Its delegates are not read, so which linear reads which constant is for the logits to tell; here it
is whether each linear's bytes are among what the program stores, alone or with the rows of those
that `quatrain.export.xnnpack.joined_linears` lowers it with.
"""

import hashlib
from collections.abc import Iterator

from torch import nn

from quatrain.backbone.model import Backbone
from quatrain.export.xnnpack.joined_linears import (
    GATE_AND_UP,
    QUERIES_KEYS_VALUES,
    JoinedLinear,
    are_alike,
)
from quatrain.linear import Int8DynActInt8WeightLinear
from quatrain.linear.int4 import Int4Linear
from quatrain.program import Program
from quatrain.quiet import quiet
from quatrain.verify.checks.packed_constants import PackedCheck

_Quantized = Int4Linear | Int8DynActInt8WeightLinear


def check_stored(program: Program, backbone: Backbone) -> list[PackedCheck]:
    """Look for the constants of each quantized linear of `backbone` in `program`.

    Empty where it has those of none: another exporter's form, or another model, which the logits
    tell.
    """
    stored = {_digest(program.named_bytes(key)) for key in program.named_data}
    missing = {
        name: _missing(linear, stored)
        for name, linear in backbone.named_modules()
        if isinstance(linear, _Quantized)
    }
    for names, joined in _joined(backbone):
        if all(missing[name] for name in names):
            rows = ", ".join(name.rpartition(".")[2] for name in names)
            as_one = f", in one matrix of {rows},"
            missing |= dict.fromkeys(names, _missing(joined, stored, as_one))
    if all(missing.values()):
        return []
    return [PackedCheck(name, problem) for name, problem in missing.items()]


def _joined(backbone: nn.Module) -> Iterator[tuple[list[str], JoinedLinear]]:
    """(their names, as one) of all linears that may be one."""
    for path, module in backbone.named_modules():
        for members in (QUERIES_KEYS_VALUES, GATE_AND_UP):
            children = [getattr(module, name, None) for name in members]
            linears = [one for one in children if isinstance(one, _Quantized)]
            if len(linears) == len(members) and are_alike(linears):
                yield [f"{path}.{name}" for name in members], JoinedLinear(linears)


def _missing(linear: _Quantized | JoinedLinear, stored: set[str], of_which: str = "") -> str | None:
    """What of the constants of `linear`, `of_which` that is said, is not `stored`."""
    with quiet():  # it imports ExecuTorch's compiler
        from quatrain.export.xnnpack.delegated_linears import constants_of
    parts = zip(("integers", "scales", "bias"), constants_of(linear), strict=False)
    absent = [part for part, (_, data) in parts if _digest(data) not in stored]
    return f"its {' and '.join(absent)}{of_which} are not the checkpoint's" if absent else None


def _digest(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
