"""Tables among a program's constants whose rows its operators outside of delegates look up.

Sources: `op_embedding.cpp` and `embeddingxb.cpp` of ExecuTorch's quantized kernels and
`op_embedding.cpp` of its portable ones.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from quatrain.errors import InputError
from quatrain.program.container import Program
from quatrain.program.file.flatbuffer import Record
from quatrain.program.loaded_values import IN_A_PTD, is_external
from quatrain.program.methods import Instruction, plain
from quatrain.program.scalar_types import NAMES

_BYTE, _CHAR, _HALF, _FLOAT = 0, 1, 5, 6
_FLOATS = (_HALF, _FLOAT)
# Operator -> how many bits an integer of its table has; None: it has no integers.
_BITS = {
    "quantized_decomposed.embedding_2bit": 2, "quantized_decomposed.embedding_4bit": 4,
    "quantized_decomposed.embedding_byte": 8, "aten.embedding": None,
}  # fmt: skip
# Bits -> by how much each integer of a byte is shifted, and what is added to all of them.
_SHIFTS, _OFFSETS = {2: (0, 2, 4, 6), 4: (4, 0)}, {2: 2, 4: 8}


def is_lookup(call: Instruction) -> bool:
    """Whether `call` is of an operator that looks rows up."""
    name, _, overload = str(call.target).rpartition(".")
    return name in _BITS and overload in ("out", "dtype_out") and len(call.args) >= 6


def indices_of(call: Instruction) -> int:
    """The value of the lookup `call` that says which rows."""
    return call.args[1 if str(call.target).startswith("aten.") else 5]


@dataclass(frozen=True)
class RowTable:
    """A table [rows, width] in floating point, or packed integers [rows, width * bits / 8] with a
    scale, and perhaps a zero point, for each row or group [rows, groups]; gives rows of `dtype`."""

    stored: np.ndarray
    dtype: np.dtype[Any]
    bits: int | None = None
    scales: np.ndarray | None = None
    zero_points: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def width(self) -> int:
        """How many numbers a row has."""
        return self.stored.shape[1] * 8 // (self.bits or 8)

    def __str__(self) -> str:
        kind = f"int{self.bits}" if self.bits else str(self.stored.dtype)
        groups = "" if self.scales is None else f", groups of {self.width // self.scales.shape[1]}"
        return f"{kind} [{len(self)}, {self.width}]{groups}"

    def rows(self, indices: np.ndarray) -> np.ndarray:
        """The rows [..., width] of `indices` [...], which must be in the table."""
        found = self.stored[indices]
        if self.bits is None or self.scales is None:
            return found.astype(self.dtype)
        integers = _unpacked(found, self.bits).astype(np.float32)
        scales = self.scales[indices].astype(np.float32)
        grouped = integers.reshape(*scales.shape, -1)
        if self.zero_points is not None:
            grouped = grouped - self.zero_points[indices].astype(np.float32)[..., None]
        return (grouped * scales[..., None]).reshape(integers.shape).astype(self.dtype)


def table_of(program: Program, values: list[Record], call: Instruction) -> RowTable:
    """The table that the lookup `call` reads, in a method with `values`.

    Raises `InputError` if it is not a constant, is cut short, or has a type that its operator does
    not accept, or if the range of packed integers is not the one for their bits.
    """
    name, _, overload = str(call.target).rpartition(".")
    bits = _BITS[name]
    given = values[call.args[-1]].scalar_type
    if given not in _FLOATS:
        found = f"gives rows of {NAMES.get(given, given)}"
        raise _unsupported(program, found, "float16 or float32")
    dtype = np.dtype(NAMES[given])
    if bits is None:
        return RowTable(constant(program, values[call.args[0]], _FLOATS), dtype)
    stored, scales, zero_points, least, most, *_ = (values[each] for each in call.args)
    _require_range(program, bits, plain(least), plain(most))
    table = constant(program, stored, (_BYTE,) if bits < 8 else (_BYTE, _CHAR))
    # The runtime reads scales as what it gives, but where a type is stated.
    kinds = _FLOATS if overload == "dtype_out" else (given,)
    per_group = constant(program, scales, kinds).reshape(len(table), -1)
    absent = plain(zero_points) is None
    zeros = None if absent else constant(program, zero_points, (given,)).reshape(per_group.shape)
    return RowTable(table, dtype, bits, per_group, zeros)


def constant(program: Program, value: Record, kinds: Collection[int]) -> np.ndarray:
    """The tensor `value` of one of the ScalarTypes `kinds` among the program's constants, mapped.
    Raises `InputError` if it is none of them."""
    place, index = program.root.constant_segment, getattr(value, "data_buffer_idx", 0)
    shape = list(getattr(value, "sizes", None) or ())
    if is_external(value):
        raise InputError(f"{program.path}: the table that it looks up is not in it; {IN_A_PTD}")
    if place is None or not 0 < index < len(place.offsets or ()) or not shape:
        raise InputError(f"{program.path}: damaged: the table that it looks up is not in the file")
    if (value.scalar_type or 0) not in kinds:
        expected = " or ".join(f"{NAMES[kind]} ({kind})" for kind in kinds)
        raise InputError(
            f"{program.path}: the table that it looks up is of ScalarType {value.scalar_type}, "
            f"expected {expected}"
        )
    dtype = np.dtype(NAMES[value.scalar_type or 0])
    start, size = place.offsets[index], int(np.prod(shape)) * dtype.itemsize
    data = program.segment(place.segment_index)[start : start + size]
    if len(data) != size:
        raise InputError(f"{program.path}: damaged: the table that it looks up is cut short")
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def _unpacked(packed: np.ndarray, bits: int) -> np.ndarray:
    if bits == 8:
        return packed
    mask = (1 << bits) - 1
    parts = [(packed >> shift) & mask for shift in _SHIFTS[bits]]
    return np.stack(parts, -1).reshape(*packed.shape[:-1], -1).astype(np.int8) - _OFFSETS[bits]


def _require_range(program: Program, bits: int, least: Any, most: Any) -> None:
    if bits == 8:
        return
    half = _OFFSETS[bits]
    if (least, most) != (-half, half - 1):
        what = f"looks up rows of integers from {least} to {most}"
        raise _unsupported(program, what, f"{-half} to {half - 1}")


def _unsupported(program: Program, what: str, expected: str) -> InputError:
    return InputError(
        f"{program.path}: {what}, expected {expected}. It runs on ExecuTorch's own runtime, and "
        "not here"
    )
