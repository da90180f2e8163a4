"""The values of a method, with its tensors in planned memory as in the runtime."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from quatrain.program import Program
from quatrain.program.file.flatbuffer import Record
from quatrain.program.methods import plain
from quatrain.program.scalar_types import NAMES
from quatrain.runtime.unrounded.errors import NotComputed

_NULL = Record(table="Null")


def dtype_of(scalar_type: int | None) -> torch.dtype:
    """The type in which numbers of ExecuTorch's `scalar_type` are computed here: float32 for
    float16. Raises `NotComputed` for one that torch does not have."""
    kind = NAMES.get(scalar_type or 0)
    if kind is None:
        raise NotComputed(f"a tensor of ScalarType {scalar_type}")
    return torch.float32 if kind == "float16" else getattr(torch, kind)


class MethodValues:
    """The values of the method of `plan` in `program`, whose memory begins as zeros but for
    buffers that the file has the beginning of.

    Attributes:
        has_halves: Whether a tensor is in float16. It is in float32 here, in a memory with twice as
            many bytes, where what overlaps does so as planned.

    Raises `NotComputed` if one is of a kind that is not computed here.
    """

    def __init__(self, program: Program, plan: Record) -> None:
        self._program = program
        self.records: list[Record] = [value.val or _NULL for value in plan.values or ()]
        kinds = {one.scalar_type for one in self.records if one.table == "Tensor"}
        self.has_halves = "float16" in map(NAMES.get, kinds)
        self._wider = 2 if self.has_halves else 1
        sizes = plan.non_const_buffer_sizes or []
        self._buffers = [torch.zeros(self._wider * size, dtype=torch.uint8) for size in sizes]
        self._places: list[tuple[torch.Tensor, int] | None] = [None] * len(self.records)
        self._values: list[Any] = [plain(record) for record in self.records]
        self._taken: dict[int, torch.Tensor] = {}
        for index, record in enumerate(self.records):
            if record.table == "Tensor":
                self._values[index] = self._begin(index, record)

    def read(self, index: int) -> Any:
        """The value `index`: a number, a tensor at its place in memory, or a list of them."""
        record = self.records[index]
        match record.table:
            case "IntList" | "TensorList":
                return [self.read(i) for i in record.items]
            case "OptionalTensorList":
                return [None if i < 0 else self.read(i) for i in record.items]
            case "Tensor" if self._values[index] is None and record.data_buffer_idx:
                return self._constant(index, record)
        return self._values[index]

    def write(self, index: int, result: Any) -> None:
        """Set value `index` to `result`, copying a tensor into the memory that is planned for it,
        or set the list `index` to those of `result`.

        Raises ValueError if there is no room for it, or for another type.
        """
        place, record = self._places[index], self.records[index]
        if record.table == "TensorList":
            for one, part in zip(record.items, result, strict=True):
                self.write(one, part)
            return
        if not isinstance(result, torch.Tensor) or place is None:
            self._values[index] = result
            return
        if result.dtype != self.dtype(index) or result.numel() > math.prod(record.sizes or ()):
            kind, sizes = NAMES.get(record.scalar_type or 0), list(record.sizes or ())
            raise ValueError(f"{result.dtype} {list(result.shape)} in room for {kind} {sizes}")
        self._values[index] = written = _view(place, result.dtype, result.shape)
        written.copy_(result)
        self._taken.pop(written.data_ptr(), None)

    def taken(self, index: int) -> torch.Tensor | None:
        """What rounding took from the integers `index`, as it was set; None: not known."""
        return self._taken.get(self.read(index).data_ptr())

    def set_taken(self, index: int, taken: torch.Tensor) -> None:
        """Let that be `taken`, float32, until something else is written there."""
        self._taken[self.read(index).data_ptr()] = taken

    def view(self, index: int, of: int, shape: Sequence[int]) -> None:
        """Let value `index` be value `of` in another `shape`, in the same memory."""
        self._places[index] = self._places[of]
        self._values[index] = self.read(of).reshape(shape)

    def move(self, source: int, index: int) -> None:
        """Let value `index` be value `source`, in the same memory."""
        self._places[index] = self._places[source]
        self._values[index] = self.read(source)

    def dtype(self, index: int) -> torch.dtype:
        """The type of the tensor that value `index` is here."""
        return dtype_of(self.records[index].scalar_type)

    def _begin(self, index: int, record: Record) -> torch.Tensor | None:
        """What the tensor `index` is before the first instruction; None of what is read from the
        file, or given."""
        shape, dtype = list(record.sizes or ()), self.dtype(index)
        if list(record.dim_order or ()) != list(range(len(shape))) or record.storage_offset:
            raise NotComputed(f"a tensor laid out as {list(record.dim_order or ())}")
        planned = record.allocation_info
        if planned is None:
            return None
        if dtype == torch.bfloat16:  # which ExecuTorch's linears do not compute
            raise NotComputed("activations in bfloat16")
        start = self._wider * ((planned.memory_offset_high << 32) + planned.memory_offset_low)
        if planned.memory_id >= len(self._buffers):
            raise NotComputed(f"memory {planned.memory_id} of {len(self._buffers)}")
        self._places[index] = place = self._buffers[planned.memory_id], start
        begun = _view(place, dtype, shape)
        if record.data_buffer_idx:
            first, *_ = self._program.root.mutable_data_segments
            begun.copy_(self._stored(index, record, first))
        return begun

    def _constant(self, index: int, record: Record) -> torch.Tensor:
        return self._stored(index, record, self._program.root.constant_segment)

    def _stored(self, index: int, record: Record, place: Record) -> torch.Tensor:
        """The data of the tensor `index` among those of `place`, a part of a segment."""
        shape, kept = record.sizes, self.dtype(index)
        dtype = getattr(torch, NAMES[record.scalar_type or 0])
        start = place.offsets[record.data_buffer_idx]
        size = math.prod(shape or ()) * dtype.itemsize
        data = self._program.segment(place.segment_index)[start : start + size]
        stored = torch.tensor(np.frombuffer(data, np.uint8))
        return stored.view(dtype).reshape(list(shape or ())).to(kept)


def _view(
    place: tuple[torch.Tensor, int], dtype: torch.dtype, shape: Sequence[int]
) -> torch.Tensor:
    buffer, start = place
    size = math.prod(shape) * dtype.itemsize
    if start + size > len(buffer):
        raise NotComputed(f"{size} bytes at byte {start} of {len(buffer)} of memory")
    return buffer[start : start + size].view(dtype).reshape(shape)
