"""Writes an XNNPACK program by stamping layers, the weights going straight into the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from quatrain.backbone.model import Backbone
from quatrain.export.constants import store_constants, xnnpack_bytes
from quatrain.export.template import tensors_of
from quatrain.export.xnnpack.embedding import NibbleEmbedding
from quatrain.export.xnnpack.layer_template import xnnpack_template
from quatrain.program import Program
from quatrain.program.edit.replicated_instructions import Renaming, name_of, replicate_instructions
from quatrain.program.flatbuffer import Record
from quatrain.program.writer import FileRange, Layout, Segment, SharedSegment, write_layout
from quatrain.stages import Stages

_ALIGNMENT = 128  # of each constant in the file, bytes, as segments have it
_DIGEST = 64  # characters of a key that are the SHA-256 of its data


def write_replicated_xnnpack_program(
    backbone: Backbone, metadata: dict[str, Any], path: Path, stages: Stages
) -> None:
    """Write the program of `backbone`, whose parts are CPU operators already.

    Raises `IrregularGraph` where its layers are not copies of each other, before anything is
    written.
    """
    template = xnnpack_template(backbone, metadata, stages)
    plan = template.root.execution_plan[0]
    with stages("stamp the layers"):
        delegates = [
            _Delegate(template, renaming)
            for renaming in replicate_instructions(plan, len(backbone.layers))
        ]
        constants = _take_names(plan)
    with stages("pack the weights") as advance:
        names = {name for delegate in delegates for name in delegate.names.values()}
        data = _packed(backbone, sorted(names | set(constants.values())), template, advance)
    with stages("write"), path.open("wb") as target:
        layout = Layout(template.root)
        shared = _add_constants(layout, template, constants, data)
        for record, delegate in zip(plan.delegates, delegates, strict=True):
            record.processed = Record(
                table="BackendDelegateDataReference",
                location=1,  # a segment
                index=layout.add(Segment([delegate.blob(data)])),
            )
        _add_named_data(layout, delegates, data, shared)
        write_layout(layout, target)


class _Delegate:
    """A delegate of the result: the template's whose copy it is, and its constants' names."""

    def __init__(self, template: Program, renaming: Renaming) -> None:
        self.original = bytes(template.delegates[renaming.delegate].blob)
        # The key in the template -> the name `form:tensor` of what the result stores.
        self.names = {
            key: renaming.of(bytes(template.named_bytes(key)).decode())
            for key in template.named_data
            if key.encode() in self.original
        }

    def keys(self, data: dict[str, tuple[str, FileRange]]) -> dict[str, str]:
        """The key in the template -> the key of the data that the result stores."""
        return {old: old[:-_DIGEST] + data[name][0] for old, name in self.names.items()}

    def blob(self, data: dict[str, tuple[str, FileRange]]) -> bytes:
        """The bytes of the delegate, with the keys of its own constants."""
        blob = self.original
        for old, new in self.keys(data).items():
            blob = blob.replace(old.encode(), new.encode())
        return blob


def _take_names(plan: Record) -> dict[int, str]:
    """The name `form:tensor` of each constant of `plan`, by its value; tensors lose theirs."""
    names = {}
    for value_id, value in enumerate(plan.values):
        name = name_of(value)
        if name:
            value.val.extra_tensor_info = None
        if name and value.val.allocation_info is None:  # else it is a KV cache
            path, _, part = name.rpartition(".")
            form, _, part = NibbleEmbedding.sources.get(part, f"plain:{part}").partition(":")
            names[value_id] = f"{form}:{path}.{part}"
    return names


def _packed(
    backbone: Backbone, names: list[str], template: Program, advance: Callable[[float], None]
) -> dict[str, tuple[str, FileRange]]:
    """Lay out the tensors of those names: the SHA-256 of each one's bytes, and where they wait."""
    tensors = tensors_of(backbone)

    def lay_out(name: str) -> bytes:
        form, _, tensor = name.partition(":")
        return xnnpack_bytes(form, tensors[tensor])

    stored = store_constants(template, lay_out, names, advance)
    keys = [constant.key or "" for constant in stored]
    return {name: (key, template.new_data[key]) for name, key in zip(names, keys, strict=True)}


def _add_constants(
    layout: Layout,
    template: Program,
    constants: dict[int, str],
    data: dict[str, tuple[str, FileRange]],
) -> dict[str, SharedSegment]:
    """Add the segment of the program's constants: the template's own, which are literals, then
    those of `constants`. Returns where each piece of data in it lies, by its digest."""
    place = layout.root.constant_segment
    parts: list[bytes | FileRange] = [bytes(template.segment(place.segment_index))]
    size = len(parts[0])
    index_of: dict[str, int] = {}
    shared: dict[str, SharedSegment] = {}
    for value_id, name in constants.items():
        digest, where = data[name]
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
    data: dict[str, tuple[str, FileRange]],
    shared: dict[str, SharedSegment],
) -> None:
    """Store the delegates' constants, each once: a tied output layer's with the embedding's."""
    segments = {digest: Segment([where]) for digest, where in data.values()}
    keys = {key: None for delegate in delegates for key in delegate.keys(data).values()}
    named = []
    for key in keys:
        digest = key[-_DIGEST:]
        index = layout.add(shared.get(digest, segments[digest]))
        named.append(Record(table="NamedData", key=key, segment_index=index))
    layout.root.named_data = named
