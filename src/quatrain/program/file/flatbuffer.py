"""Decodes a FlatBuffer into plain records by its schema, and encodes records again.

Decoding trusts nothing: each offset and length is checked against the buffer before it is
followed, and the total work is bounded by the buffer's size, so that a damaged file costs an
error and nothing else. Source of the layout: https://flatbuffers.dev/internals/
"""

import struct
from types import SimpleNamespace
from typing import Any

import flatbuffers
import numpy as np

from quatrain.errors import InputError
from quatrain.program.file.schema import SCALARS, Field, Schema

# A legitimate file's vectors and strings are (almost) never shared, so that reading every
# field touches each byte about once. A file where it takes more is made to waste time.
_MAX_REREADS = 4


class Record(SimpleNamespace):
    """One decoded table: `table` holds its type's name, the other attributes its fields.

    A field that the file leaves out is its default (scalars) or None (all else). Vectors of
    bytes are read-only memoryviews into the file, other vectors lists.
    """

    table: str


def decode(data: memoryview, schema: Schema, what: str) -> Record:
    """The root table of `data`. Raises `InputError` naming `what` if it is damaged."""
    return _Decoder(data, schema, what).root()


def encode(record: Record, schema: Schema) -> bytes:
    """`record` as a finished FlatBuffer. The same record always gives the same bytes."""
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(_pack_table(builder, record, schema), file_identifier=schema.identifier)
    return bytes(builder.Output())


class _Decoder:
    def __init__(self, data: memoryview, schema: Schema, what: str):
        self.data = data
        self.schema = schema
        self.what = what
        self.budget = _MAX_REREADS * len(data) + 4096

    def root(self) -> Record:
        identifier = bytes(self.data[4:8])
        if identifier != self.schema.identifier:
            expected = self.schema.identifier.decode()
            raise InputError(
                f"{self.what}: has {identifier!r} at byte 4, expected {expected!r}; it is another "
                "kind of file, another version, or damaged"
            )
        return self.table(self.number("I", 0), self.schema.root)

    def damaged(self, reason: str) -> InputError:
        return InputError(f"{self.what}: damaged or cut short: {reason}")

    def number(self, format_: str, position: int) -> Any:
        size = struct.calcsize("<" + format_)
        if position < 0 or position + size > len(self.data):
            raise self.damaged(f"an offset points to byte {position} of {len(self.data)}")
        return struct.unpack_from("<" + format_, self.data, position)[0]

    def spend(self, count: int) -> None:
        self.budget -= count
        if self.budget < 0:
            raise self.damaged("its parts overlap many times over")

    def table(self, position: int, name: str) -> Record:
        vtable = position - self.number("i", position)
        vtable_size = self.number("H", vtable)
        self.number("B", vtable + vtable_size - 1)
        self.spend(max(4, self.number("H", vtable + 2)))
        fields = self.schema.tables[name]
        known = 4 + 2 * (fields[-1].slot + 1) if fields else 4
        if any(bytes(self.data[vtable + known : vtable + vtable_size])):
            raise InputError(
                f"{self.what}: damaged, or made by a newer ExecuTorch than the one installed: "
                f"a {name} has fields that the installed schema does not know"
            )
        record = Record(table=name)
        for field in fields:
            entry = 4 + 2 * field.slot
            offset = self.number("H", vtable + entry) if entry + 2 <= vtable_size else 0
            value = self.field(field, position, offset, vtable) if offset else None
            if field.kind == "scalar" and not offset:
                value = bool(field.default) if field.type == "bool" else field.default
            setattr(record, field.name, value)
        return record

    def field(self, field: Field, table: int, offset: int, vtable: int) -> Any:
        position = table + offset
        if field.kind == "scalar":
            return self.number(SCALARS[field.type], position)
        target = position + self.number("I", position)
        if field.kind == "string":
            return self.string(target)
        if field.kind == "vector":
            return self.vector(target, field)
        if field.kind == "union":
            member_offset = self.number("H", vtable + 2 + 2 * field.slot)
            member = self.number("B", table + member_offset) if member_offset else 0
            members = self.schema.unions[field.type]
            if not 1 <= member <= len(members):
                raise self.damaged(f"{field.type} has no member {member}")
            return self.table(target, members[member - 1])
        return self.table(target, field.type)

    def span(self, position: int, width: int) -> memoryview:
        """The payload of the vector of `width`-byte elements at `position`."""
        length = self.number("I", position) * width
        if length > len(self.data) - position - 4:
            raise self.damaged(f"{length} bytes at byte {position + 4} of {len(self.data)}")
        return self.data[position + 4 : position + 4 + length]

    def string(self, position: int) -> str:
        raw = self.span(position, 1)
        self.spend(len(raw))
        try:
            return str(raw, "utf-8")
        except UnicodeDecodeError as error:
            raise self.damaged("a name is not valid UTF-8") from error

    def vector(self, position: int, field: Field) -> Any:
        if field.element == "scalar":
            format_ = SCALARS[field.type]
            raw = self.span(position, struct.calcsize("<" + format_))
            if format_ == "B":
                return raw
            self.spend(len(raw))
            return np.frombuffer(raw, dtype="<" + format_).tolist()
        raw = self.span(position, 4)
        self.spend(len(raw))
        starts = range(position + 4, position + 4 + len(raw), 4)
        targets = [start + self.number("I", start) for start in starts]
        if field.element == "string":
            return [self.string(target) for target in targets]
        return [self.table(target, field.type) for target in targets]


def _pack_table(builder: flatbuffers.Builder, record: Record, schema: Schema) -> int:
    fields = schema.tables[record.table]
    # Children first: a FlatBuffer is written from its end.
    offsets = {
        field.slot: _pack_child(builder, field, getattr(record, field.name), schema)
        for field in fields
        if field.kind != "scalar" and getattr(record, field.name) is not None
    }
    builder.StartObject(fields[-1].slot + 1 if fields else 0)
    for field in fields:
        value = getattr(record, field.name)
        if field.kind == "scalar":
            _pack_scalar(builder, field, value)
        elif value is not None:
            if field.kind == "union":
                member = schema.unions[field.type].index(value.table) + 1
                builder.PrependUint8Slot(field.slot - 1, member, 0)
            builder.PrependUOffsetTRelativeSlot(field.slot, offsets[field.slot], 0)
    return builder.EndObject()


def _pack_scalar(builder: flatbuffers.Builder, field: Field, value: Any) -> None:
    prepend = {
        "?": builder.PrependBoolSlot, "b": builder.PrependInt8Slot, "B": builder.PrependUint8Slot,
        "h": builder.PrependInt16Slot, "H": builder.PrependUint16Slot,
        "i": builder.PrependInt32Slot, "I": builder.PrependUint32Slot,
        "q": builder.PrependInt64Slot, "Q": builder.PrependUint64Slot,
        "f": builder.PrependFloat32Slot, "d": builder.PrependFloat64Slot,
    }  # fmt: skip
    prepend[SCALARS[field.type]](field.slot, value, field.default)


def _pack_child(builder: flatbuffers.Builder, field: Field, value: Any, schema: Schema) -> int:
    if field.kind == "string":
        return builder.CreateString(value)
    if field.kind != "vector":
        return _pack_table(builder, value, schema)
    if field.element == "scalar":
        return _pack_scalars(builder, field, value)
    items = [
        builder.CreateString(item)
        if field.element == "string"
        else _pack_table(builder, item, schema)
        for item in value
    ]
    builder.StartVector(4, len(items), 4)
    for item in reversed(items):
        builder.PrependUOffsetTRelative(item)
    return builder.EndVector()


def _pack_scalars(builder: flatbuffers.Builder, field: Field, values: Any) -> int:
    format_ = SCALARS[field.type]
    raw = bytes(values) if format_ == "B" else np.array(values, dtype="<" + format_).tobytes()
    width = struct.calcsize("<" + format_)
    builder.StartVector(width, len(raw) // width, max(field.align, width))
    builder.head = builder.Head() - len(raw)
    builder.Bytes[builder.Head() : builder.Head() + len(raw)] = raw
    return builder.EndVector()
