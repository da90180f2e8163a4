"""Writes an edited program: the FlatBuffers anew, every segment streamed from file to file."""

import math
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

from quatrain.atomic_files import whole_file
from quatrain.errors import InputError
from quatrain.program.flatbuffer import Record, decode, encode
from quatrain.program.graph import VulkanGraph
from quatrain.program.schema import program_schema
from quatrain.program.vulkan_delegate import raw_section, raw_section_start, read_graph, write_graph

if TYPE_CHECKING:
    from quatrain.program.container import Delegate, Program

# At byte 8: magic, header size, FlatBuffer size, where segments begin, size of all segments.
EXTENDED_HEADER = struct.Struct("<4sIQQQ")
_CHUNK = 8 << 20
_HEADER_SPACE = 32
_ALIGNMENT, _SMALLEST_PAGE, _LARGEST_PAGE = 128, 4096, 16384


@dataclass(frozen=True)
class FileRange:
    """`size` bytes of an open file, from `start`."""

    file: IO[bytes]
    start: int
    size: int

    def __len__(self) -> int:
        return self.size


@dataclass
class Segment:
    """A segment to be written: its parts, one after the other."""

    parts: list[bytes | FileRange]

    @property
    def size(self) -> int:
        return sum(len(part) for part in self.parts)


@dataclass(frozen=True)
class SharedSegment:
    """`size` bytes of another segment, `offset` bytes into it, which are not written again."""

    segment: int
    offset: int
    size: int


@dataclass
class Layout:
    """The new program: its root record and the segments that it refers to by index."""

    root: Record
    segments: list[Segment | SharedSegment] = field(default_factory=list)

    def add(self, segment: Segment | SharedSegment) -> int:
        self.segments.append(segment)
        return len(self.segments) - 1


def write_program(program: "Program", path: Path) -> None:
    """Write `program` to `path`: byte for byte where nothing was edited, else laid out anew.

    Raises `InputError` where the output cannot be written or the input was cut short meanwhile.
    """
    stored = {id(d): _stored_graph(program, d) for d in program.delegates if d.graph}
    changed = [d for d in program.delegates if d.graph and d.graph != stored[id(d)]]
    now = [d.graph for d in program.delegates if d.graph]
    dropped = program.dropped_keys | (_keys(list(stored.values())) - _keys(now))
    with (
        program.path.open("rb") as source,
        whole_file(path) as temporary,
        temporary.open("wb") as target,
    ):
        if changed or dropped:
            layout = _lay_out(program, source, changed, dropped)
            write_layout(layout, target, _alignment(program))
        else:
            _copy(FileRange(source, 0, len(program.data)), target)
        target.truncate()


def _stored_graph(program: "Program", delegate: "Delegate") -> VulkanGraph:
    return read_graph(delegate.blob, str(program.path))


def _keys(graphs: list[VulkanGraph]) -> set[str]:
    return {constant.key for graph in graphs for constant in graph.constants if constant.key}


def _lay_out(
    program: "Program", source: IO[bytes], changed: list["Delegate"], dropped: set[str]
) -> Layout:
    """The new root and segments: those of `changed` delegates rebuilt, `dropped` keys left out."""
    layout = Layout(decode(program.flatbuffer, program_schema(), str(program.path)))
    moved: dict[int, int] = {}

    def kept(index: int) -> int:
        """The new index of the old segment `index`, copied on its first use."""
        if index not in moved:
            start, size = program.segment_range(index)
            moved[index] = layout.add(Segment([FileRange(source, start, size)]))
        return moved[index]

    root = layout.root
    for place in [root.constant_segment, *(root.mutable_data_segments or ())]:
        if place is not None and place.offsets:
            place.segment_index = kept(place.segment_index)
    records = [record for plan in root.execution_plan for record in plan.delegates or ()]
    for delegate, record in zip(program.delegates, records, strict=True):
        if delegate in changed:
            _store_blob(program, source, delegate, record, layout)
        elif record.processed.location == 1:
            record.processed.index = kept(record.processed.index)
    named = [item for item in root.named_data or () if item.key not in dropped]
    for item in named:
        item.segment_index = kept(item.segment_index)
    for key, place in program.new_data.items():
        index = layout.add(Segment([place]))
        named.append(Record(table="NamedData", key=key, segment_index=index))
    root.named_data = named
    return layout


def _store_blob(
    program: "Program", source: IO[bytes], delegate: "Delegate", record: Record, layout: Layout
) -> None:
    """Put the rebuilt bytes of `delegate` where the old ones were: a segment, or inline."""
    if delegate.graph is None:
        raise ValueError("only a Vulkan delegate can be rebuilt")
    raw = raw_section(delegate.blob, str(program.path))
    head = write_graph(delegate.graph, len(raw))
    if record.processed.location != 1:
        layout.root.backend_delegate_data[record.processed.index].data = head + bytes(raw)
        return
    parts: list[bytes | FileRange] = [head]
    if len(raw):
        start, _ = program.segment_range(record.processed.index)
        parts.append(FileRange(source, start + raw_section_start(delegate.blob), len(raw)))
    record.processed.index = layout.add(Segment(parts))


def write_layout(layout: Layout, target: IO[bytes], alignment: int = _ALIGNMENT) -> None:
    """Write a whole program to `target`, each segment at a multiple of `alignment` bytes."""
    offset, records = 0, []
    for segment in layout.segments:
        if isinstance(segment, SharedSegment):
            start = records[segment.segment].offset + segment.offset
        else:
            start = _aligned(offset, alignment)
            offset = start + segment.size
        records.append(Record(table="DataSegment", offset=start, size=segment.size))
    layout.root.segments = records
    body = encode(layout.root, program_schema())
    if not records:
        target.write(body)
        return
    size = len(body) + _HEADER_SPACE
    base = _aligned(size, alignment)
    target.write(_with_header(body, size, base, offset))
    for record, segment in zip(records, layout.segments, strict=True):
        if isinstance(segment, Segment):
            target.seek(base + record.offset)
            for part in segment.parts:
                if isinstance(part, FileRange):
                    _copy(part, target)
                else:
                    target.write(part)


def _with_header(body: bytes, size: int, base: int, segments_size: int) -> bytes:
    """`body` with the extended header at byte 8 and its root offset moved along."""
    root = int.from_bytes(body[:4], "little") + _HEADER_SPACE
    header = EXTENDED_HEADER.pack(b"eh00", EXTENDED_HEADER.size, size, base, segments_size)
    padded = header + bytes(_HEADER_SPACE - len(header))
    return root.to_bytes(4, "little") + body[4:8] + padded + body[8:]


def _alignment(program: "Program") -> int:
    """The alignment of segments: ExecuTorch's default, or pages where the input has those."""
    places = [program.segment_base, *(record.offset for record in program.root.segments or ())]
    common = math.gcd(*places)
    found = min(common & -common, _LARGEST_PAGE)
    return found if found >= _SMALLEST_PAGE else _ALIGNMENT


def _aligned(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _copy(part: FileRange, target: IO[bytes]) -> None:
    """Copy `part` to where `target` stands, in chunks; holes of a sparse file stay holes."""
    descriptor, end = part.file.fileno(), part.start + part.size
    shift = target.tell() - part.start
    position = part.start
    while position < end:
        position = _next_data(descriptor, position, end)
        target.seek(position + shift)
        chunk = os.pread(descriptor, min(_CHUNK, end - position), position)
        if not chunk and position < end:
            raise InputError(f"{part.file.name}: was cut short while it was read")
        target.write(chunk)
        position += len(chunk)
    target.seek(end + shift)


def _next_data(descriptor: int, position: int, end: int) -> int:
    """The first byte at or after `position` that is not in a hole, at most `end`."""
    if not hasattr(os, "SEEK_DATA"):
        return position
    try:
        return min(os.lseek(descriptor, position, os.SEEK_DATA), end)
    except OSError:  # nothing but a hole up to the end of the file
        return end
