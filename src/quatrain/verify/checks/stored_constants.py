"""An XNNPACK program's constants against the checkpoint's tensors.

Its delegates are not read, so which linear reads which constant is for the logits to tell; here it
is whether the bytes of each linear are among what the program stores, alone or with the rows of
those that `quatrain.export.xnnpack.joined_linears` lowers it with, and those of each norm.
"""

import hashlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from quatrain.backbone.model import Backbone
from quatrain.export.xnnpack.joined_linears import (
    GATE_AND_UP,
    QUERIES_KEYS_VALUES,
    JoinedLinear,
    are_alike,
)
from quatrain.linear import Int8DynActInt8WeightLinear, QuantizedGroupEmbedding
from quatrain.linear.int4 import Int4Linear
from quatrain.program import Program
from quatrain.quiet import quiet
from quatrain.verify.checks.packed_constants import PackedCheck

_Quantized = Int4Linear | Int8DynActInt8WeightLinear
_Constants = dict[str, bytes]  # by what of a linear they are


class _Stored:
    """What a program stores, for its delegates and beside them."""

    def __init__(self, program: Program) -> None:
        self._digests: set[str] = set()
        self._sizes: set[int] = set()
        for key in program.named_data:
            data = program.named_bytes(key)
            self._digests.add(_digest(data))
            self._sizes.add(len(data))
        self._offsets: list[int] = []
        self._beside = memoryview(b"")
        if (place := program.root.constant_segment) and place.offsets:
            self._offsets, self._beside = place.offsets, program.segment(place.segment_index)

    def has(self, data: bytes) -> bool:
        # A slice past the end is shorter, and so another.
        beside = any(self._beside[at : at + len(data)] == data for at in self._offsets)
        return beside or _digest(data) in self._digests

    def problem(self, constants: _Constants, names: list[str]) -> str | None:
        """What of the `constants` of those linears is not stored."""
        absent = [what for what, data in constants.items() if _digest(data) not in self._digests]
        rows = ", ".join(name.rpartition(".")[2] for name in names)
        where = f", in one matrix of {rows}," if len(names) > 1 else ""
        return f"its {' and '.join(absent)}{where} are not the checkpoint's" if absent else None

    def has_sizes_of(self, constants: _Constants) -> bool:
        return all(len(data) in self._sizes for data in constants.values())


def check_stored(
    program: Program, backbone: Backbone, advance: Callable[[float], None]
) -> list[PackedCheck]:
    """Look for the constants of each quantized linear of `backbone` in `program`, and for its other
    tensors of one dimension or two.

    Those are left out where the program has few of them, and linears where it has none, not even of
    their sizes: another exporter's form.
    """
    stored = _Stored(program)
    return _linears(stored, backbone, advance) + _others(stored, backbone)


def _linears(
    stored: _Stored, backbone: Backbone, advance: Callable[[float], None]
) -> list[PackedCheck]:
    every = [*_alone(backbone), *_joined(backbone)]
    problems: dict[str, str | None] = {}
    known: set[str] = set()
    for done, (names, linear) in enumerate(every, 1):
        if all(problems.get(name, "not looked for") for name in names):
            constants = _constants(linear)
            problem = stored.problem(constants, names)
            if problem is None or stored.has_sizes_of(constants):
                problems |= dict.fromkeys(names, problem)
                known.update(names)
            else:
                problems = dict.fromkeys(names, problem) | problems
        advance(done / len(every))
    if known != problems.keys() and all(problems.values()):
        return []
    return [PackedCheck(name, problem) for name, problem in problems.items()]


def _alone(backbone: Backbone) -> list[tuple[list[str], _Quantized]]:
    modules = backbone.named_modules()
    return [([name], linear) for name, linear in modules if isinstance(linear, _Quantized)]


def _joined(backbone: Backbone) -> Iterator[tuple[list[str], JoinedLinear]]:
    """(their names, as one) of all linears that may be one."""
    for path, module in backbone.named_modules():
        for members in (QUERIES_KEYS_VALUES, GATE_AND_UP):
            children = [getattr(module, name, None) for name in members]
            linears = [one for one in children if isinstance(one, _Quantized)]
            if len(linears) == len(members) and are_alike(linears):
                yield [f"{path}.{name}" for name in members], JoinedLinear(linears)


def _constants(linear: _Quantized | JoinedLinear) -> _Constants:
    with quiet():  # it imports ExecuTorch's compiler
        from quatrain.export.xnnpack.delegated_linears import constants_of
    parts = [data for _, data in constants_of(linear)]
    return dict(zip(("integers", "scales", "bias"), parts, strict=False))


def _others(stored: _Stored, backbone: Backbone) -> list[PackedCheck]:
    """Those of which there is more to say than that most are not there, as they are."""
    read_elsewhere = (*_Quantized.__args__, nn.Embedding, QuantizedGroupEmbedding)
    checks = []
    for path, module in backbone.named_modules():
        if not isinstance(module, read_elsewhere):
            for name, tensor in module.named_parameters(recurse=False):
                if tensor.dim() <= 2:
                    problem = None if stored.has(_bytes(tensor)) else "is not the checkpoint's"
                    checks.append(PackedCheck(f"{path}.{name}", problem))
    wrong = sum(check.problem is not None for check in checks)
    return checks if 2 * wrong < len(checks) else []


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().float().contiguous().numpy().tobytes()


def _digest(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()
