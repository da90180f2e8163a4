"""Writes an XNNPACK program from its layer template, the weights going straight into the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from quatrain.backbone.layers.moe import MixtureOfExperts
from quatrain.backbone.model import Backbone
from quatrain.export.template.constants import PACKING, store_constants, tensors_of, xnnpack_bytes
from quatrain.export.template.template import cached_template
from quatrain.export.xnnpack.delegate_keys import DIGEST_LENGTH, with_keys
from quatrain.export.xnnpack.embedding import NibbleEmbedding
from quatrain.int4 import Scheme
from quatrain.program import Program, open_program
from quatrain.program.edit.constant_source import ConstantSource, Form
from quatrain.program.edit.replicated_instructions import Renaming, name_of, replicate_instructions
from quatrain.program.edit.replicated_layers import IrregularGraph
from quatrain.program.file.flatbuffer import Record
from quatrain.program.file.segments import FileRange, Layout, Segment, SharedSegment, write_layout
from quatrain.program.file.shared_delegates import share_delegates
from quatrain.quiet import quiet
from quatrain.stages import Stages

_ALIGNMENT = 128  # of each constant in the file, bytes, as segments have it

# Where laid-out constants wait to be written: the SHA-256 of each one's bytes, and the bytes.
_Data = dict[ConstantSource, tuple[str, FileRange]]


def write_xnnpack_program_from_template(
    backbone: Backbone, metadata: dict[str, Any], path: Path, stages: Stages
) -> None:
    """Write the program of `backbone`, whose parts are CPU operators already.

    Raises `IrregularGraph` if its layers are not copies of each other, before anything is written.
    """
    template = xnnpack_template(backbone, metadata, stages)
    plan = template.root.execution_plan[0]
    with stages("replicate the layers"):
        delegates = [
            _Delegate(template, renaming)
            for renaming in replicate_instructions(plan, len(backbone.layers))
        ]
        constants = _take_sources(plan)
    with stages(PACKING) as advance:
        sources = {source for delegate in delegates for source in delegate.sources.values()}
        data = _packed(backbone, sorted(sources | set(constants.values())), template, advance)
    with stages("write"), path.open("wb") as target:
        layout = Layout(template.root)
        shared = _add_constants(layout, template, constants, data)
        blobs = share_delegates(plan, [delegate.blob(data) for delegate in delegates])
        for record, blob in zip(plan.delegates, blobs, strict=True):
            record.processed = Record(
                table="BackendDelegateDataReference",
                location=1,  # a segment
                index=layout.add(Segment([blob])),
            )
        _add_named_data(layout, delegates, data, shared)
        write_layout(layout, target)


class _Delegate:
    """A delegate of the result: the template's whose copy it is, and its constants' sources."""

    def __init__(self, template: Program, renaming: Renaming) -> None:
        self.original = bytes(template.delegates[renaming.delegate].blob)
        # The key in the template -> what the result stores in that place.
        self.sources = {
            key: renaming.of(ConstantSource.from_key(bytes(template.named_bytes(key)).decode()))
            for key in template.named_data
            if key.encode() in self.original
        }

    def keys(self, data: _Data) -> dict[str, str]:
        """The key in the template -> the key of the data that the result stores."""
        return {old: old[:-DIGEST_LENGTH] + data[source][0] for old, source in self.sources.items()}

    def blob(self, data: _Data) -> bytes:
        """The bytes of the delegate, with the keys of its own constants."""
        return with_keys(self.original, self.keys(data))


def _take_sources(plan: Record) -> dict[int, ConstantSource]:
    """The source of each constant of `plan`, by its value; tensors lose their names."""
    sources = {}
    for value_id, value in enumerate(plan.values):
        name = name_of(value)
        if name:
            value.val.extra_tensor_info = None
        if name and value.val.allocation_info is None:  # else it is a KV cache
            path, _, own = name.rpartition(".")
            source = NibbleEmbedding.sources.get(own, ConstantSource(Form.PLAIN, own))
            sources[value_id] = source.below(path)
    return sources


def _packed(
    backbone: Backbone,
    sources: list[ConstantSource],
    template: Program,
    advance: Callable[[float], None],
) -> _Data:
    """Lay out the constants of those sources."""
    tensors = tensors_of(backbone)

    def lay_out(source: ConstantSource) -> bytes:
        return xnnpack_bytes(source.form, *(tensors[name] for name in source.tensors))

    stored = store_constants(template, lay_out, sources, advance)
    keys = [constant.key or "" for constant in stored]
    return {
        source: (key, template.new_data[key]) for source, key in zip(sources, keys, strict=True)
    }


def _add_constants(
    layout: Layout,
    template: Program,
    constants: dict[int, ConstantSource],
    data: _Data,
) -> dict[str, SharedSegment]:
    """Add the segment of the program's constants: the template's own, which are literals, then
    those of `constants`. Returns where each piece of data in it lies, by its digest."""
    place = layout.root.constant_segment
    parts: list[bytes | FileRange] = [bytes(template.segment(place.segment_index))]
    size = len(parts[0])
    index_of: dict[str, int] = {}
    shared: dict[str, SharedSegment] = {}
    for value_id, source in constants.items():
        digest, where = data[source]
        if digest not in index_of:
            padding = -size % _ALIGNMENT
            parts += [bytes(padding), where]
            shared[digest] = SharedSegment(len(layout.segments), size + padding, len(where))
            index_of[digest] = len(place.offsets)
            place.offsets.append(size + padding)
            size += padding + len(where)
        layout.root.execution_plan[0].values[value_id].val.data_buffer_idx = index_of[digest]
    place.segment_index = layout.add(Segment(parts))
    return shared


def _add_named_data(
    layout: Layout,
    delegates: list[_Delegate],
    data: _Data,
    shared: dict[str, SharedSegment],
) -> None:
    """Store the delegates' constants, each once: a tied output layer's with the embedding's."""
    segments = {digest: Segment([where]) for digest, where in data.values()}
    keys = {key: None for delegate in delegates for key in delegate.keys(data).values()}
    named = []
    for key in keys:
        digest = key[-DIGEST_LENGTH:]
        index = layout.add(shared.get(digest, segments[digest]))
        named.append(Record(table="NamedData", key=key, segment_index=index))
    layout.root.named_data = named


def xnnpack_template(backbone: Backbone, metadata: dict[str, Any], stages: Stages) -> Program:
    """The template for `backbone`, whose parts are CPU operators already.

    Raises `IrregularGraph` if the layers do not allow for one.
    """
    if any(isinstance(part, MixtureOfExperts) for part in backbone.modules()):
        raise IrregularGraph("experts are branches, which go to instructions by number")
    if not backbone.rewinds:
        raise IrregularGraph("what one with a state hands on lies in another place by turns")

    def make(placeholder: Backbone, path: Path) -> None:
        with stages("import the compiler"), quiet():
            from quatrain.export.xnnpack.lowering import write_named_program
        write_named_program(placeholder, metadata, path, stages)

    settings = {"backend": "xnnpack", "metadata": metadata}
    return open_program(cached_template(backbone, Scheme.DYNAMIC_INT8, settings, make))
