"""Builds a `.pte` file from its root record and its segments."""

import os
import struct
from dataclasses import dataclass, field
from typing import IO

from quatrain.errors import InputError
from quatrain.multiples import up_to
from quatrain.program.file.flatbuffer import Record, encode
from quatrain.program.file.schema import program_schema

# At byte 8: magic, header size, FlatBuffer size, where segments begin, size of all segments.
EXTENDED_HEADER = struct.Struct("<4sIQQQ")
_CHUNK = 8 << 20
_HEADER_SPACE = 32
ALIGNMENT = 128  # of segments: ExecuTorch's default


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
        """Its bytes."""
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
        """The index of `segment`, which comes after those there are."""
        self.segments.append(segment)
        return len(self.segments) - 1


def write_layout(layout: Layout, target: IO[bytes], alignment: int = ALIGNMENT) -> None:
    """Write a whole program to `target`, each segment at a multiple of `alignment` bytes."""
    offset, records = 0, []
    for segment in layout.segments:
        if isinstance(segment, SharedSegment):
            start = records[segment.segment].offset + segment.offset
        else:
            start = up_to(offset, alignment)
            offset = start + segment.size
        records.append(Record(table="DataSegment", offset=start, size=segment.size))
    layout.root.segments = records
    body = encode(layout.root, program_schema())
    if not records:
        target.write(body)
        return
    size = len(body) + _HEADER_SPACE
    base = up_to(size, alignment)
    target.write(_with_header(body, size, base, offset))
    for record, segment in zip(records, layout.segments, strict=True):
        if isinstance(segment, Segment):
            target.seek(base + record.offset)
            for part in segment.parts:
                if isinstance(part, FileRange):
                    copy_range(part, target)
                else:
                    target.write(part)


def _with_header(body: bytes, size: int, base: int, segments_size: int) -> bytes:
    """`body` with the extended header at byte 8 and its root offset moved along."""
    root = int.from_bytes(body[:4], "little") + _HEADER_SPACE
    header = EXTENDED_HEADER.pack(b"eh00", EXTENDED_HEADER.size, size, base, segments_size)
    padded = header + bytes(_HEADER_SPACE - len(header))
    return root.to_bytes(4, "little") + body[4:8] + padded + body[8:]


def copy_range(part: FileRange, target: IO[bytes]) -> None:
    """Copy `part` to the current position of `target`, in chunks; holes of a sparse file stay
    holes."""
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
