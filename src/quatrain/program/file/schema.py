"""Reads FlatBuffers schemas (.fbs), so that the files in the ExecuTorch wheel stay the only source.

Covers what ExecuTorch's schemas use: tables, enums, unions, vectors, defaults, includes. A member
of a union that has a name of its own, as in `XNNAdd: _XNNNode2x1`, is a table of that name.
Source of the grammar: https://flatbuffers.dev/grammar/
"""

import re
from dataclasses import dataclass
from functools import cache

from quatrain.executorch_wheel import (
    program_schema_text,
    vulkan_schema_text,
    xnnpack_schema_text,
)

# FlatBuffers type -> struct format character (little-endian is added where it is used).
SCALARS = {
    "bool": "?", "byte": "b", "ubyte": "B", "int8": "b", "uint8": "B",
    "short": "h", "ushort": "H", "int16": "h", "uint16": "H",
    "int": "i", "uint": "I", "int32": "i", "uint32": "I",
    "long": "q", "ulong": "Q", "int64": "q", "uint64": "Q",
    "float": "f", "float32": "f", "double": "d", "float64": "d",
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """One field of a table: `kind` is scalar, string, table, union or vector.

    `type` is the scalar's name or the table's or union's; for a vector that of its elements,
    with `element` their kind. `slot` is the field's index in the vtable; a union takes two,
    the first for the number of its member.
    """

    name: str
    kind: str
    type: str
    slot: int
    element: str = ""
    default: bool | int | float = 0
    align: int = 1


@dataclass(frozen=True)
class Schema:
    """The tables and unions of one schema and of those it includes; fields of an enum are of the
    scalar that stores it."""

    tables: dict[str, tuple[Field, ...]]
    unions: dict[str, tuple[str, ...]]  # members; member i is number i + 1
    root: str
    identifier: bytes


def parse_schema(text: str) -> Schema:
    """The schema written in `text` (comments and includes are dropped)."""
    text = re.sub(r"//[^\n]*", "", text)
    enum_types: dict[str, str] = {}
    enums: dict[str, dict[str, int]] = {}
    for name, scalar, body in re.findall(r"enum\s+(\w+)\s*:\s*(\w+)\s*\{(.*?)\}", text, re.S):
        enum_types[name], enums[name] = scalar, _enum_members(body)
    bodies = re.findall(r"union\s+(\w+)\s*\{(.*?)\}", text, re.S)
    unions = {name: tuple(re.findall(r"(\w+)(?:\s*:\s*\w+)?", body)) for name, body in bodies}
    tables = {
        name: _table_fields(body, enum_types, enums, unions)
        for name, body in re.findall(r"table\s+(\w+)\s*\{(.*?)\}", text, re.S)
    }
    for _, body in bodies:
        tables |= {name: tables[of] for name, of in re.findall(r"(\w+)\s*:\s*(\w+)", body)}
    root = _only(re.findall(r"root_type\s+(\w+)", text))
    identifier = _only(re.findall(r'file_identifier\s+"(\w+)"', text))
    return Schema(tables, unions, root, identifier.encode())


def _only(found: list[str]) -> str:
    if len(found) != 1:
        raise ValueError(f"schema has {len(found)} root types or file identifiers, expected one")
    return found[0]


def _enum_members(body: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"(\w+)\s*=\s*(-?\d+)", body)}


def _table_fields(
    body: str,
    enum_types: dict[str, str],
    enums: dict[str, dict[str, int]],
    unions: dict[str, tuple[str, ...]],
) -> tuple[Field, ...]:
    pattern = r"(\w+)\s*:\s*(\[?)(\w+)\]?\s*(?:=\s*([\w.\-]+))?\s*(?:\((.*?)\))?\s*;"
    fields, slot = [], 0
    for name, vector, type_, default, attributes in re.findall(pattern, body):
        element = _kind(type_, enum_types, unions)
        align = re.search(r"force_align:\s*(\d+)", attributes)
        slot += element == "union" and not vector  # its member number comes first
        fields.append(
            Field(
                name=name,
                kind="vector" if vector else element,
                type=str(enum_types.get(type_, type_)),
                slot=slot,
                element=element if vector else "",
                default=_default(default, enums.get(type_)),
                align=int(align[1]) if align else 1,
            )
        )
        slot += 1
    return tuple(fields)


def _kind(type_: str, enum_types: dict[str, str], unions: dict[str, tuple[str, ...]]) -> str:
    if type_ in SCALARS or type_ in enum_types:
        return "scalar"
    if type_ == "string":
        return "string"
    return "union" if type_ in unions else "table"


def _default(text: str, enum: dict[str, int] | None) -> bool | int | float:
    if not text:
        return 0
    if enum and text in enum:
        return enum[text]
    if text in ("true", "false"):
        return text == "true"
    return float(text) if "." in text else int(text)


@cache
def program_schema() -> Schema:
    """The schema of the `.pte` container (`exir/_serialize/program.fbs` of the wheel)."""
    return parse_schema(program_schema_text())


@cache
def vulkan_schema() -> Schema:
    """The schema of a Vulkan delegate (`backends/vulkan/serialization/schema.fbs`)."""
    return parse_schema(vulkan_schema_text())


@cache
def xnnpack_schema() -> Schema:
    """The schema of an XNNPACK delegate (`backends/xnnpack/serialization/schema.fbs`)."""
    return parse_schema(xnnpack_schema_text())
