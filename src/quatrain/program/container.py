"""Opens a `.pte` file: its methods, metadata, delegates and constants.

Layout of the file: a FlatBuffer (`program.fbs`) with an extended header at byte 8, then
segments at the offsets that the FlatBuffer lists. The file stays memory-mapped: opening
one reads the FlatBuffers, and constants only when they are asked for.
Source: `executorch/exir/_serialize/_program.py` and `docs/source/pte-file-format.md`.
"""

import hashlib
import mmap
import os
import tempfile
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import IO

from quatrain.errors import InputError
from quatrain.program.delegate import VULKAN_BACKEND, Delegate
from quatrain.program.delegate_call import delegate_call_problems
from quatrain.program.delegate_counts import no_vulkan_delegate, several_vulkan_delegates
from quatrain.program.file.flatbuffer import Record, decode
from quatrain.program.file.mapped_file import map_program
from quatrain.program.file.schema import program_schema
from quatrain.program.file.segments import EXTENDED_HEADER, FileRange
from quatrain.program.loaded_values import IN_A_PTD
from quatrain.program.methods import (
    CONTEXT,
    Instruction,
    read_methods,
    stated_metadata,
    with_context,
)
from quatrain.program.vulkan.graph import Constant, VulkanGraph
from quatrain.program.vulkan.graph_bytes import is_vulkan_blob, raw_section, read_graph

_INLINE, _SEGMENT = 0, 1  # DataLocation
_UNSTATED_CONTEXT = 1 << 30


class Program:
    """An opened `.pte`. `delegates[i].graph` may be edited; `write_program` writes the result.

    `stated` has the values of its constant methods, and `metadata` in addition what follows from
    them. `call_problems` lists what a runtime would refuse in the stored calls of its Vulkan
    delegates, and values of its methods that it would not load.
    """

    def __init__(self, path: Path):
        self.path = path
        self._map = map_program(self.path)
        self.data = memoryview(self._map)
        program_size, self.segment_base = self._extended_header()
        self.flatbuffer = self.data[:program_size]
        self.root = decode(self.flatbuffer, program_schema(), str(path))
        for index in range(len(self.root.segments or ())):
            self.segment_range(index)  # refuses a file that was cut short, read or not
        self.new_data: dict[str, FileRange] = {}
        self.dropped_keys: set[str] = set()  # named data to leave out when writing
        # Named data to store as part of a segment: which, and from what byte of it on.
        self.shared_keys: dict[str, tuple[int, int]] = {}
        self.shares_delegates = False  # whether to store equal delegates as one, on writing
        self._segment_of_key = {
            item.key: item.segment_index for item in self.root.named_data or () if item.key
        }
        self.delegates = [
            self._delegate(plan, record)
            for plan in self.root.execution_plan or ()
            for record in plan.delegates or ()
        ]
        self.methods = read_methods(self.root, str(path))
        self.call_problems = delegate_call_problems(self.delegates, self.root, self.methods)
        self.stated = stated_metadata(self.methods, str(path))
        self.metadata = with_context(self.stated)

    @cached_property
    def _spool(self) -> IO[bytes]:
        """Holds what `add_data` was given, for as long as the program is open."""
        return tempfile.TemporaryFile()

    @property
    def graphs(self) -> list[VulkanGraph]:
        """The graphs of its Vulkan delegates, in order."""
        return [delegate.graph for delegate in self.delegates if delegate.graph]

    def require_graphs(self) -> list[VulkanGraph]:
        """The graphs of its Vulkan delegates; raises `InputError` if there is none."""
        if not self.graphs:
            raise no_vulkan_delegate(self.path, self.delegates)
        return self.graphs

    @cached_property
    def vulkan(self) -> VulkanGraph:
        """The graph of its only Vulkan delegate; raises `InputError` if there is not exactly
        one."""
        first, *others = self.require_graphs()
        if others:
            raise several_vulkan_delegates(self.path, self.delegates)
        return first

    @property
    def context(self) -> int:
        """The number of tokens that its KV cache holds; unlimited if it does not say."""
        return int(self.metadata.get(CONTEXT, _UNSTATED_CONTEXT))

    @property
    def instructions(self) -> list[Instruction]:
        """The instructions of all methods, in order."""
        return [each for method in self.methods.values() for each in method.instructions]

    def calls_outside_delegates(self) -> dict[str, int]:
        """The operators that methods call outside of delegates, each with its number of calls."""
        return dict(Counter(str(i.target) for i in self.instructions if i.kind == "kernel"))

    @property
    def named_data(self) -> list[str]:
        """The keys of the constants stored beside the FlatBuffer."""
        return [*self._segment_of_key, *self.new_data]

    def named_bytes(self, key: str) -> memoryview:
        """A read-only view of the bytes stored under `key`; raises `InputError` if there are
        none."""
        if key in self.new_data:
            stored = self.new_data[key]
            return memoryview(os.pread(self._spool.fileno(), stored.size, stored.start))
        if key not in self._segment_of_key:
            raise InputError(
                f"{self.path}: the constant {key} is not in the file; unless that is damaged, "
                f"{IN_A_PTD}"
            )
        return self.segment(self._segment_of_key[key])

    @property
    def named_segments(self) -> list[int]:
        """The segments that hold named data."""
        return list(self._segment_of_key.values())

    @property
    def delegate_segments(self) -> set[int]:
        """The segments that hold delegates."""
        return {d.record.processed.index for d in self.delegates if self.in_segment(d)}

    def in_segment(self, delegate: Delegate) -> bool:
        """Whether a delegate's bytes are in their own segment, not inside the FlatBuffer."""
        return delegate.record.processed.location == _SEGMENT

    def segment_of(self, constant: Constant) -> int | None:
        """The segment of a constant; None if it is stored in its delegate or in another file."""
        return self._segment_of_key.get(constant.key) if constant.key else None

    def holds(self, constant: Constant) -> bool:
        """Whether a constant's bytes are in this file, not in a `.ptd` beside it."""
        key = constant.key
        return key is None or key in self._segment_of_key or key in self.new_data

    def segment(self, index: int) -> memoryview:
        """A view of segment `index`."""
        start, size = self.segment_range(index)
        return self.data[start : start + size]

    def segment_range(self, index: int) -> tuple[int, int]:
        """The offset of segment `index` in the file, and its size, both in bytes."""
        segments = self.root.segments or ()
        if not 0 <= index < len(segments):
            raise InputError(f"{self.path}: damaged: segment {index} of {len(segments)}")
        start, size = self.segment_base + segments[index].offset, segments[index].size
        if start + size > len(self.data):
            raise InputError(
                f"{self.path}: cut short: a segment ends at byte {start + size}, "
                f"the file has {len(self.data)}"
            )
        return start, size

    def add_data(self, data: bytes) -> Constant:
        """Add `data` to the program under the key of its SHA-256, as ExecuTorch does.

        It is kept in a temporary file until `write_program` writes it.
        """
        key = hashlib.sha256(data).hexdigest()
        if key not in self._segment_of_key and key not in self.new_data:
            start = self._spool.seek(0, 2)
            self._spool.write(data)
            self._spool.flush()
            self.new_data[key] = FileRange(self._spool, start, len(data))
        return Constant(len(data), key)

    def release_memory(self) -> None:
        """Release the pages of the file that were read; they are read again when needed."""
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def _extended_header(self) -> tuple[int, int]:
        """The FlatBuffer's size and where segments begin (0: there are none)."""
        if len(self.data) < 8 + EXTENDED_HEADER.size or bytes(self.data[8:12]) != b"eh00":
            return len(self.data), 0
        _, _, size, base, _ = EXTENDED_HEADER.unpack_from(self.data, 8)
        if size > len(self.data) or base > len(self.data):
            raise InputError(
                f"{self.path}: cut short: its header speaks of {max(size, base)} bytes, "
                f"the file has {len(self.data)}"
            )
        return size, base

    def _delegate(self, plan: Record, record: Record) -> Delegate:
        blob = self._delegate_blob(record.processed)
        specs = {spec.key or "": bytes(spec.value or b"") for spec in record.compile_specs or ()}
        delegate = Delegate(plan.name or "", record.id or "", blob, specs, record=record)
        if delegate.backend == VULKAN_BACKEND or is_vulkan_blob(blob):
            delegate.graph = read_graph(blob, str(self.path), specs)
            raw = raw_section(blob, str(self.path))
            delegate.graph.fetch = lambda constant: self._constant_bytes(constant, raw)
        return delegate

    def _delegate_blob(self, data: Record | None) -> memoryview:
        if data is None:
            raise InputError(f"{self.path}: damaged: a delegate without data")
        if data.location == _SEGMENT:
            return self.segment(data.index)
        inline: list[Record] = self.root.backend_delegate_data or []
        if data.location != _INLINE or data.index >= len(inline):
            raise InputError(f"{self.path}: damaged: delegate data {data.index} of {len(inline)}")
        return inline[data.index].data or memoryview(b"")

    def _constant_bytes(self, constant: Constant, raw: memoryview) -> memoryview:
        if constant.key is not None:
            return self.named_bytes(constant.key)
        if constant.offset + constant.nbytes > len(raw):
            raise InputError(f"{self.path}: damaged: a constant past the end of its delegate")
        return raw[constant.offset : constant.offset + constant.nbytes]


def open_program(path: Path | str) -> Program:
    """Open a program to read it, or to edit it and write it to another file.

    Args:
        path: A .pte file of Quatrain or ExecuTorch. It stays memory-mapped: constants are read when
            they are used.

    Raises:
        InputError: The file is missing, not a program, truncated or damaged.
    """
    return Program(Path(path))
