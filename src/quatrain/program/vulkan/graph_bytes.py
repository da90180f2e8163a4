"""Reads the bytes of a Vulkan delegate as a `VulkanGraph`, and writes them.

They are a 30-byte `VH00` header, a `VK00` FlatBuffer, and raw bytes that older exporters put
constants into (newer ones keep them in the program's named data).
Source: `executorch/backends/vulkan/serialization` (schema.fbs, vulkan_graph_serialize.py).
"""

import struct
from collections.abc import Mapping
from dataclasses import replace

from quatrain.errors import InputError
from quatrain.program.file.flatbuffer import Record, decode, encode
from quatrain.program.file.schema import vulkan_schema
from quatrain.program.vulkan.graph import (
    Constant,
    Operator,
    Plain,
    SymInt,
    Tensor,
    Value,
    ValueList,
    VulkanGraph,
    check_graph,
)
from quatrain.program.vulkan.sizes.declared_sizes import misdeclared_sizes

_HEADER = struct.Struct("<4s4sHIIIQ")  # zeros, magic, header size, graph at/size, raw at/size
_HEADER_SPACE = 32
_NAMED = 2**64 - 1  # a constant's offset where its bytes are in the program's named data

DTYPES = {0: "bool", 1: "uint8", 2: "int8", 3: "int32", 4: "float16", 5: "float32",
          6: "float64", 7: "int64", 127: "unset"}  # fmt: skip
STORAGES = {0: "buffer", 1: "texture3d", 2: "texture2d", 255: "default"}
LAYOUTS = {0: "width_packed", 1: "height_packed", 2: "channels_packed", 3: "int8_4w4c",
           4: "int8_4h4w", 5: "int8_4w", 6: "int8_4c", 8: "int8_4c1w", 9: "int8_conv2d",
           255: "default"}  # fmt: skip
# Of each kind of fixed value: its table, and the field that holds it.
_PLAIN_TABLES = {
    "int": ("Int", "int_val"), "double": ("Double", "double_val"), "bool": ("Bool", "bool_val"),
    "string": ("String", "string_val"), "int_list": ("IntList", "items"),
    "double_list": ("DoubleList", "items"), "bool_list": ("BoolList", "items"),
}  # fmt: skip


def is_vulkan_blob(blob: memoryview) -> bool:
    """Whether a delegate's bytes begin as the Vulkan backend's do."""
    return bytes(blob[4:8]) == b"VH00"


def read_graph(blob: memoryview, what: str, specs: Mapping[str, bytes]) -> VulkanGraph:
    """The graph of a Vulkan delegate's bytes; values without a storage or layout get the runtime's
    default, which `specs` may set for the whole graph. Raises `InputError`, naming `what`, if it is
    damaged."""
    graph_bytes, _ = _sections(blob, what)
    root = decode(graph_bytes, vulkan_schema(), what)
    graph = VulkanGraph(
        operators=[
            Operator(call.name or "", tuple(call.args or ()), call.node_id)
            for call in root.chain or ()
        ],
        values=[_read_value(value.value, what) for value in root.values or ()],
        inputs=list(root.input_ids or ()),
        outputs=list(root.output_ids or ()),
        constants=[_read_constant(constant) for constant in root.constants or ()],
        version=root.version or "",
        storage_override=_name(STORAGES, root.storage_type_override, what),
        layout_override=_name(LAYOUTS, root.memory_layout_override, what),
    )
    if root.shaders:
        raise InputError(f"{what}: carries its own shaders, which Quatrain does not read")
    check_graph(graph, what)
    graph.values = [_placed(value, specs) for value in graph.values]
    for problem in misdeclared_sizes(graph):
        raise InputError(f"{what}: damaged: {problem}")
    return graph


def _placed(value: Value, specs: Mapping[str, bytes]) -> Value:
    """`value` with its storage and layout; a constant is put where its operator wants it. Source:
    `GraphConfig.cpp` of ExecuTorch, and `get_graph_config`, which reads one byte of each."""
    if not isinstance(value, Tensor) or value.constant is not None:
        return value
    storage = STORAGES.get((specs.get("storage_type_override") or b"\x01")[0], "texture3d")
    layout = LAYOUTS.get((specs.get("memory_layout_override") or b"\x00")[0], "width_packed")
    return replace(
        value,
        storage=storage if value.storage == "default" else value.storage,
        layout=layout if value.layout == "default" else value.layout,
    )


def raw_section(blob: memoryview, what: str) -> memoryview:
    """The raw bytes after the graph, where older exporters put constants."""
    return _sections(blob, what)[1]


def raw_section_start(blob: memoryview) -> int:
    """Where in a delegate's bytes its raw section begins."""
    return _HEADER.unpack_from(blob)[5]


def _sections(blob: memoryview, what: str) -> tuple[memoryview, memoryview]:
    if len(blob) < _HEADER.size or not is_vulkan_blob(blob):
        raise InputError(f"{what}: its delegate does not begin with a VH00 header; damaged")
    _, _, _, at, size, raw_at, raw_size = _HEADER.unpack_from(blob)
    if at + size > len(blob) or raw_at + raw_size > len(blob):
        raise InputError(f"{what}: damaged or cut short: its delegate's header points past its end")
    return blob[at : at + size], blob[raw_at : raw_at + raw_size]


def _name(names: dict[int, str], number: int, what: str) -> str:
    if number not in names:
        raise InputError(f"{what}: damaged: {number} is none of {', '.join(names.values())}")
    return names[number]


def _number(names: dict[int, str], name: str) -> int:
    return next(number for number, known in names.items() if known == name)


def _read_value(record: Record | None, what: str) -> Value:
    if record is None:
        return Plain("null")
    match record.table:
        case "VkTensor":
            return Tensor(
                dtype=_name(DTYPES, record.datatype, what),
                shape=tuple(record.dims or ()),
                constant=record.constant_id if record.constant_id >= 0 else None,
                mem_obj_id=record.mem_obj_id if record.mem_obj_id >= 0 else None,
                storage=_name(STORAGES, record.storage_type, what),
                layout=_name(LAYOUTS, record.memory_layout, what),
                staging_dtype=_name(DTYPES, record.staging_datatype, what),
            )
        case "SymInt":
            return SymInt(record.value)
        case "ValueList":
            return ValueList(tuple(record.items or ()))
        case "Null":
            return Plain("null")
        case "String":
            return Plain("string", record.string_val or "")
    for kind, (table, name) in _PLAIN_TABLES.items():
        if table == record.table:
            content = getattr(record, name)
            return Plain(kind, tuple(content or ()) if name == "items" else content)
    raise InputError(f"{what}: a value of kind {record.table}, which Quatrain does not read")


def _read_constant(record: Record) -> Constant:
    if record.named_key:
        return Constant(record.length, record.named_key)
    return Constant(record.length, None, record.offset)


def write_graph(graph: VulkanGraph, raw_nbytes: int) -> bytes:
    """The header and FlatBuffer of `graph`, padded so that `raw_nbytes` raw bytes may follow."""
    body = encode(_graph_record(graph), vulkan_schema())
    padded = body + bytes(-len(body) % 16)
    header = _HEADER.pack(
        bytes(4), b"VH00", _HEADER.size, _HEADER_SPACE, len(body),
        _HEADER_SPACE + len(padded), raw_nbytes,
    )  # fmt: skip
    return header + bytes(_HEADER_SPACE - _HEADER.size) + padded


def _graph_record(graph: VulkanGraph) -> Record:
    return Record(
        table="VkGraph",
        version=graph.version,
        chain=[
            Record(table="OperatorCall", node_id=op.node_id, name=op.name, args=list(op.args))
            for op in graph.operators
        ],
        values=[Record(table="VkValue", value=_value_record(value)) for value in graph.values],
        input_ids=graph.inputs,
        output_ids=graph.outputs,
        constants=[
            Record(
                table="VkBytes",
                offset=_NAMED if constant.key else constant.offset,
                length=constant.nbytes,
                named_key=constant.key,
            )
            for constant in graph.constants
        ],
        shaders=[],
        storage_type_override=_number(STORAGES, graph.storage_override),
        memory_layout_override=_number(LAYOUTS, graph.layout_override),
    )


def _value_record(value: Value) -> Record:
    if isinstance(value, Tensor):
        return Record(
            table="VkTensor",
            datatype=_number(DTYPES, value.dtype),
            dims=list(value.shape),
            constant_id=-1 if value.constant is None else value.constant,
            mem_obj_id=-1 if value.mem_obj_id is None else value.mem_obj_id,
            storage_type=_number(STORAGES, value.storage),
            memory_layout=_number(LAYOUTS, value.layout),
            staging_datatype=_number(DTYPES, value.staging_dtype),
        )
    if isinstance(value, SymInt):
        return Record(table="SymInt", value=value.value)
    if isinstance(value, ValueList):
        return Record(table="ValueList", items=list(value.items))
    if value.kind == "null":
        return Record(table="Null")
    table, name = _PLAIN_TABLES[value.kind]
    content = list(value.value) if isinstance(value.value, tuple) else value.value
    return Record(table=table, **{name: content})
