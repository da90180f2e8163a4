"""The graph of an XNNPACK delegate: its nodes, the values between them, and its constants.

Layout: a header (`XNNHeader` of `backends/xnnpack/serialization/xnnpack_graph_serialize.py` in
ExecuTorch), a FlatBuffer (`schema.fbs` beside it), and the bytes of constants that the program does
not hold beside its delegates.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from quatrain.errors import InputError
from quatrain.program.delegate import Delegate
from quatrain.program.file.flatbuffer import Record, decode
from quatrain.program.file.schema import xnnpack_schema

XNNPACK_BACKEND = "XnnpackBackend"
_MAGIC = b"XH00"
_OFFSETS = struct.Struct("<IIIQ")  # of the FlatBuffer and the constants: where, how many bytes
_BEFORE = 10  # bytes of the header
# The place in XNNGraph's table, behind what tables begin with, that says where `output_ids` is.
_OUTPUT_IDS = 4 + 2 * 5


@dataclass(frozen=True)
class XnnpackValue:
    """A value between nodes: of XNNPACK's data type number `datatype` and, at most, that `shape`.

    `constant`: which of the graph's constants it is; 0: none. `argument`: which of the arguments of
    the delegate's call it is, None if it stays inside. `quantization`: its table in the file.
    """

    datatype: int
    shape: tuple[int, ...]
    constant: int
    argument: int | None
    quantization: Record | None


@dataclass(frozen=True)
class XnnpackGraph:
    """`nodes` in the order of computation, each with its table's name as `kind`; `values` by id.

    `constant`: the bytes of the constant of that index.
    """

    nodes: list[Record]
    values: dict[int, XnnpackValue]
    inputs: list[int]
    outputs: list[int]
    constant: Callable[[int], memoryview]


def read_xnnpack_graph(
    delegate: Delegate, named: Callable[[str], memoryview], what: str
) -> XnnpackGraph:
    """The graph of `delegate`, one of XNNPACK's, with the data that its program has by name.

    Raises `InputError` naming `what` if it is damaged.
    """
    blob = delegate.blob
    if not _has_header(blob):
        raise InputError(f"{what}: damaged: an XNNPACK delegate without its header")
    start, size, data_start, data_size = _OFFSETS.unpack_from(blob, _BEFORE)
    root = decode(blob[start : start + size], xnnpack_schema(), what)
    data = blob[data_start : data_start + data_size]
    places = root.constant_data or []

    def constant(index: int) -> memoryview:
        if not 0 < index < len(places):
            raise InputError(f"{what}: damaged: constant {index} of {len(places)} of a delegate")
        place = places[index]
        if place.named_key:
            return named(place.named_key)
        return data[place.offset : place.offset + place.size]

    values = {}
    for value in (each.xvalue_union for each in root.xvalues or ()):
        tensor = getattr(value, "tensor_value", value)
        outside = tensor.external_id < (root.num_externs or 0)
        values[tensor.id_out] = XnnpackValue(
            datatype=tensor.datatype,
            shape=tuple(tensor.dims or ()),
            constant=tensor.constant_buffer_idx,
            argument=tensor.external_id if outside else None,
            quantization=getattr(value, "quant_params", None),
        )
    nodes = root.xnodes or []
    return XnnpackGraph(
        nodes, values, list(root.input_ids or ()), list(root.output_ids or ()), constant
    )


def xnnpack_constant_keys(delegate: Delegate, what: str) -> list[str]:
    """The names of the data that `delegate` has outside of itself; none if it is not XNNPACK's, or
    damaged. Raises `InputError` naming `what` if its graph cannot be read."""
    blob = delegate.blob
    if delegate.backend != XNNPACK_BACKEND or not _has_header(blob):
        return []
    start, size, _, _ = _OFFSETS.unpack_from(blob, _BEFORE)
    root = decode(blob[start : start + size], xnnpack_schema(), what)
    return [place.named_key for place in root.constant_data or () if place.named_key]


def xnnpack_result_count(delegate: Delegate) -> int | None:
    """The number of results of `delegate`; None if it is damaged, or not XNNPACK's.

    Reads this one number without decoding the graph, since opening a program asks every delegate.
    """
    blob = delegate.blob
    if delegate.backend != XNNPACK_BACKEND or not _has_header(blob):
        return None
    (start,) = struct.unpack_from("<I", blob, _BEFORE)
    graph = blob[start:]
    try:
        (table,) = struct.unpack_from("<I", graph)
        fields = table - struct.unpack_from("<i", graph, table)[0]
        field = table + struct.unpack_from("<H", graph, fields + _OUTPUT_IDS)[0]
        (ids,) = struct.unpack_from("<I", graph, field)
        return struct.unpack_from("<I", graph, field + ids)[0]
    except struct.error:
        return None


def _has_header(blob: memoryview) -> bool:
    return bytes(blob[4:8]) == _MAGIC and len(blob) >= _BEFORE + _OFFSETS.size
