"""Writes an edited program: encodes the FlatBuffers again, and copies segments from file to
file."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from quatrain.atomic_files import whole_file
from quatrain.program.container import Program
from quatrain.program.delegate import Delegate
from quatrain.program.file.flatbuffer import Record, decode
from quatrain.program.file.schema import program_schema
from quatrain.program.file.segments import (
    ALIGNMENT,
    FileRange,
    Layout,
    Segment,
    SharedSegment,
    copy_range,
    write_layout,
)
from quatrain.program.file.shared_delegates import share_delegates
from quatrain.program.vulkan.graph import VulkanGraph
from quatrain.program.vulkan.graph_bytes import (
    raw_section,
    raw_section_start,
    read_graph,
    write_graph,
)

_SMALLEST_PAGE, _LARGEST_PAGE = 4096, 16384


def write_program(program: Program, path: Path | str) -> None:
    """Write a program with its edits, completely or not at all.

    Without edits the file is copied byte for byte. Otherwise the FlatBuffers are encoded again,
    constants that no graph uses any more are left out, and the rest is copied from file to file.

    Args:
        program: From `open_program`; the graphs of its delegates may have been edited.
        path: The .pte file to write.

    Raises:
        InputError: The output cannot be written, or the input was truncated meanwhile.
    """
    stored = {id(d): _stored_graph(program, d) for d in program.delegates if d.graph}
    changed = [d for d in program.delegates if d.graph and d.graph != stored[id(d)]]
    dropped = program.dropped_keys | (_keys(stored.values()) - _keys(program.graphs))
    with (
        program.path.open("rb") as source,
        whole_file(Path(path)) as temporary,
        temporary.open("wb") as target,
    ):
        if changed or dropped or program.shared_keys or program.shares_delegates:
            layout = _lay_out(program, source, changed, dropped)
            write_layout(layout, target, _alignment(program))
        else:
            copy_range(FileRange(source, 0, len(program.data)), target)
        target.truncate()


def _stored_graph(program: Program, delegate: Delegate) -> VulkanGraph:
    return read_graph(delegate.blob, str(program.path), delegate.compile_specs)


def _keys(graphs: Iterable[VulkanGraph]) -> set[str]:
    return {constant.key for graph in graphs for constant in graph.constants if constant.key}


def _lay_out(
    program: Program, source: IO[bytes], changed: list[Delegate], dropped: set[str]
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
    for data in [root.constant_segment, *(root.mutable_data_segments or ())]:
        if data is not None and data.offsets:
            data.segment_index = kept(data.segment_index)
    records = [record for plan in root.execution_plan for record in plan.delegates or ()]
    for delegate, record in zip(program.delegates, records, strict=True):
        if delegate in changed:
            _store_blob(program, source, delegate, record, layout)
        elif program.in_segment(delegate):
            record.processed.index = kept(record.processed.index)
    if program.shares_delegates:
        for plan in root.execution_plan:
            share_delegates(plan, [str(record) for record in plan.delegates])
    named = [item for item in root.named_data or () if item.key not in dropped]
    for item in named:
        if item.key in program.shared_keys:
            segment, offset = program.shared_keys[item.key]
            _, size = program.segment_range(item.segment_index)
            item.segment_index = layout.add(SharedSegment(kept(segment), offset, size))
        else:
            item.segment_index = kept(item.segment_index)
    for key, stored in program.new_data.items():
        index = layout.add(Segment([stored]))
        named.append(Record(table="NamedData", key=key, segment_index=index))
    root.named_data = named
    return layout


def _store_blob(
    program: Program, source: IO[bytes], delegate: Delegate, record: Record, layout: Layout
) -> None:
    """Put the rebuilt bytes of `delegate` where the old ones were: a segment, or inline."""
    if delegate.graph is None:
        raise ValueError("only a Vulkan delegate can be rebuilt")
    raw = raw_section(delegate.blob, str(program.path))
    head = write_graph(delegate.graph, len(raw))
    if not program.in_segment(delegate):
        layout.root.backend_delegate_data[record.processed.index].data = head + bytes(raw)
        return
    parts: list[bytes | FileRange] = [head]
    if len(raw):
        start, _ = program.segment_range(record.processed.index)
        parts.append(FileRange(source, start + raw_section_start(delegate.blob), len(raw)))
    record.processed.index = layout.add(Segment(parts))


def _alignment(program: Program) -> int:
    """The alignment of segments: ExecuTorch's default, or pages where the input has those. Where
    the first one begins says nothing: one base in 32 is a page's by chance."""
    offsets = [record.offset for record in program.root.segments or () if record.offset]
    if not offsets:
        return ALIGNMENT
    common = math.gcd(program.segment_base, *offsets)
    found = min(common & -common, _LARGEST_PAGE)
    return found if found >= _SMALLEST_PAGE else ALIGNMENT
