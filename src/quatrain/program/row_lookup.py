"""Rows of an int4 table that a program reads on the CPU and gives to its Vulkan delegate.

So it is with a table too large for GPU memory, an embedding for each layer (Gemma 3n and 4).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from quatrain.errors import InputError
from quatrain.program.container import Program
from quatrain.program.methods import Instruction, plain

_OPERATOR = "quantized_decomposed.embedding_4bit.out"
_RANGE = (-8, 7)  # of the integers
_KINDS = {0: np.dtype(np.uint8), 6: np.dtype(np.float32)}  # by ExecuTorch's ScalarType
_BYTE, _FLOAT = _KINDS


class RowLookup:
    """The operator `quantized_decomposed::embedding_4bit` ahead of the delegate of `program`.

    Its table is uint8 [rows, width / 2], a row's even columns + 8 in the high halves; its scales
    float32 [rows, groups]. Raises `InputError` where they are not whole, and where the operator is
    given zero points, or integers of another range.
    """

    def __init__(self, program: Program, call: Instruction) -> None:
        self._path = program.path
        values = _values(program)
        packed, scales, zero_points, least, most, tokens, out, *_ = call.args
        stated = tuple(plain(values[each]) for each in (zero_points, least, most))
        if stated != (None, *_RANGE):
            raise InputError(
                f"{self._path}: looks up rows with zero points, or of integers from {stated[1]} to "
                f"{stated[2]}; expected none, and {_RANGE[0]} to {_RANGE[1]}. It runs on "
                "ExecuTorch's own runtime, and not here"
            )
        self._packed = _constant(program, values[packed], _BYTE)
        self._scales = _constant(program, values[scales], _FLOAT)
        self._scales = self._scales.reshape(len(self._packed), -1)
        (delegate,) = [each for each in program.instructions if each.kind == "delegate"]
        given = list(delegate.args[: len(program.vulkan.inputs)])
        inputs = _plan(program).inputs
        self._tokens = inputs.index(tokens)
        # Of what the delegate is given: an input of the program, or the rows (None).
        self._order = [None if value == out else inputs.index(value) for value in given]

    def rows(self, tokens: np.ndarray) -> np.ndarray:
        """float32 [..., width] of tokens int64 [...]. Raises `InputError` where one has no row."""
        outside = tokens[(tokens < 0) | (tokens >= len(self._packed))]
        if outside.size:
            raise InputError(
                f"token {int(outside[0])} is outside the table of {self._path}, which has "
                f"{len(self._packed)} rows; is the tokenizer another model's?"
            )
        packed, scales = self._packed[tokens], self._scales[tokens]
        integers = np.stack((packed >> 4, packed & 15), -1).astype(np.float32) - 8
        grouped = integers.reshape(*scales.shape, -1) * scales[..., None]
        return grouped.reshape(*tokens.shape, -1)

    def given(self, inputs: Sequence[Any]) -> list[Any]:
        """What the delegate is given, the rows as a numpy array, for a call of `inputs`."""
        tokens = np.asarray(inputs[self._tokens])
        return [self.rows(tokens) if place is None else inputs[place] for place in self._order]


def row_lookup(program: Program) -> RowLookup | None:
    """The lookup of rows that `program` begins with, if it does. Raises as `RowLookup`."""
    call = _call_of(program)
    return None if call is None else RowLookup(program, call)


def work_beside_delegate(program: Program) -> dict[str, int]:
    """The operators outside of any delegate, and how often each is called, but for a lookup of rows
    that the only delegate is given."""
    kernels = [each for each in program.instructions if each.kind == "kernel"]
    looked_up = _call_of(program)
    return dict(Counter(str(each.target) for each in kernels if each is not looked_up))


def _call_of(program: Program) -> Instruction | None:
    """The lookup, where all else is a delegate call behind it that reads its result."""
    kinds = [each.kind for each in program.instructions]
    if kinds[:2] != ["kernel", "delegate"] or kinds.count("delegate") != 1:
        return None
    first, delegate = program.instructions[:2]
    arguments = list(first.args)
    of_constant = first.target == _OPERATOR and len(arguments) >= 7
    return first if of_constant and arguments[6] in delegate.args else None


def _plan(program: Program) -> Any:
    return next(plan for plan in program.root.execution_plan if plan.delegates)


def _values(program: Program) -> list[Any]:
    return [value.val for value in _plan(program).values]


def _constant(program: Program, value: Any, kind: int) -> np.ndarray:
    """The tensor `value`, of that ScalarType, among the program's constants, mapped."""
    place, index = program.root.constant_segment, getattr(value, "data_buffer_idx", 0)
    shape = list(getattr(value, "sizes", None) or ())
    if place is None or not 0 < index < len(place.offsets or ()) or not shape:
        raise InputError(f"{program.path}: damaged: the table that it looks up is no constant")
    if (value.scalar_type or 0) != kind:
        raise InputError(
            f"{program.path}: the table that it looks up is of ScalarType {value.scalar_type}, "
            f"expected {_KINDS[kind]} ({kind})"
        )
    dtype = _KINDS[kind]
    start, size = place.offsets[index], int(np.prod(shape)) * dtype.itemsize
    data = program.segment(place.segment_index)[start : start + size]
    if len(data) != size:
        raise InputError(f"{program.path}: damaged: the table that it looks up is cut short")
    return np.frombuffer(data, dtype=dtype).reshape(shape)
