"""XNNPACK's nodes in torch, in float32: weights are dequantized, activations are not rounded to
int8 or float16.

Sources: `XNNCompiler.cpp` and `XNNExecutor.cpp` of ExecuTorch's XNNPACK backend, and XNNPACK's
`include/xnnpack.h`.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from quatrain.program.file.flatbuffer import Record
from quatrain.program.xnnpack_delegate import XnnpackGraph, XnnpackValue
from quatrain.runtime.unrounded.errors import UnknownNode

# XNNDatatype
_FLOAT, _HALF, _DYNAMIC_INT8, _INT8_CHANNELS, _INT4_CHANNELS, _INT4_GROUPS = 1, 2, 9, 6, 8, 10
_FLOATS = {_FLOAT: torch.float32, _HALF: torch.float16}
_NONE = 2**32 - 1  # of an id
# Each byte of packed int4 as its two numbers in float32, the lower half's first, in 8 bytes.
_PAIRS = np.array([[i % 16 - 8, i // 16 - 8] for i in range(256)], np.float32).view(np.int64)[:, 0]
_AT_ONCE = 2**18  # weights that are dequantized, so few that a processor's cache holds them

_UNARY: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "XNNAbs": torch.abs, "XNNCeiling": torch.ceil,
    "XNNClamp": torch.clone,  # to its limits, which other nodes may have too
    "XNNConvert": torch.clone, "XNNCopy": torch.clone, "XNNCos": torch.cos, "XNNExp": torch.exp,
    "XNNFloor": torch.floor, "XNNGelu": F.gelu, "XNNHardswish": F.hardswish,
    "XNNLog": torch.log, "XNNNegate": torch.neg, "XNNReciprocalSquareRoot": torch.rsqrt,
    "XNNSigmoid": torch.sigmoid, "XNNSin": torch.sin, "XNNSoftmax": lambda x: x.softmax(-1),
    "XNNSquare": torch.square, "XNNSquareRoot": torch.sqrt, "XNNTanh": torch.tanh,
}  # fmt: skip
_BINARY: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "XNNAdd": torch.add, "XNNBatchMatrixMultiply": torch.matmul, "XNNDiv": torch.div,
    "XNNMaximum": torch.maximum, "XNNMinimum": torch.minimum, "XNNMultiply": torch.mul,
    "XNNSubtract": torch.sub,
}  # fmt: skip


def _slice(x: torch.Tensor, node: Record) -> torch.Tensor:
    for dim, (offset, size) in enumerate(zip(node.offsets, node.sizes, strict=True)):
        x = x.narrow(dim, offset, min(size, x.shape[dim] - offset))
    return x


def _pad(x: torch.Tensor, node: Record) -> torch.Tensor:
    by_dim = zip(node.pre_paddings, node.post_paddings, strict=True)
    return F.pad(
        x, [size for sizes in reversed(list(by_dim)) for size in sizes], value=node.padding_value
    )


# With numbers or sizes that the file states; of a shape, 0 is what is left.
_STATIC: dict[str, Callable[[torch.Tensor, Record], torch.Tensor]] = {
    "XNNLeakyReLU": lambda x, node: F.leaky_relu(x, node.negative_slope),
    "XNNStaticConstantPad": _pad,
    "XNNStaticReshape": lambda x, node: x.reshape([size or -1 for size in node.new_shape]),
    "XNNStaticSlice": _slice,
    "XNNStaticTranspose": lambda x, node: x.permute(list(node.perm)),
}


class UnroundedDelegate:
    """An XNNPACK delegate's `graph`.

    Raises `UnknownNode` if it has a node or a value of a kind that is not computed here.
    """

    def __init__(self, graph: XnnpackGraph) -> None:
        self._graph = graph
        kinds = {value.datatype for value in graph.values.values()}
        self.has_int4_groups, self.has_halves = _INT4_GROUPS in kinds, _HALF in kinds
        self._nodes = [node.xnode_union for node in graph.nodes]
        self.has_gelu = any(node.table == "XNNGelu" for node in self._nodes)
        self._limits = [node.output_min_max for node in graph.nodes]
        for value in graph.values.values():
            self._require_known(value)
        for node in self._nodes:
            _require_known_node(node)
        taken = {value.argument: i for i, value in graph.values.items()}
        inputs, self.results = (
            sorted(map(self._argument, ids)) for ids in (graph.inputs, graph.outputs)
        )
        self._inputs = [(taken[place], place) for place in inputs]
        self._outputs = [taken[place] for place in self.results]

    def __call__(self, arguments: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What is written to the arguments `results` of a call with those `arguments`, by place."""
        values = {i: arguments[place] for i, place in self._inputs}

        def read(index: int) -> torch.Tensor:
            return values[index] if index in values else self._constant(index)

        for node, limits in zip(self._nodes, self._limits, strict=True):
            result = self._computed(node, read)
            if limits is not None:
                result = result.clamp(limits.output_min, limits.output_max)
            values[node.output_id] = result
        return [values[i] for i in self._outputs]

    def _argument(self, index: int) -> int:
        place = self._graph.values[index].argument
        if place is None:
            raise UnknownNode(f"an XNNPACK delegate whose value {index} is no argument of its call")
        return place

    def _computed(self, node: Record, read: Callable[[int], torch.Tensor]) -> torch.Tensor:
        if node.table in _UNARY:
            return _UNARY[node.table](read(node.input_id))
        if node.table in _BINARY:
            return _BINARY[node.table](read(node.input1_id), read(node.input2_id))
        if node.table == "XNNFullyConnected":
            x, weight = read(node.input1_id), node.filter_id
            is_stored = self._graph.values[weight].constant
            parts = self._rows(weight) if is_stored else [read(weight)]
            result = torch.cat([F.linear(x, rows) for rows in parts], -1)
            return result if node.bias_id == _NONE else result + read(node.bias_id)
        if node.table in _STATIC:
            return _STATIC[node.table](read(node.input_id), node)
        ids = (node.input1_id, node.input2_id, node.input3_id, node.input4_id, node.input5_id)
        count = int(node.table.removeprefix("XNNConcatenate"))
        return torch.cat([read(i) for i in ids[:count]], node.axis)

    def _constant(self, index: int) -> torch.Tensor:
        """A constant value in float32."""
        value = self._graph.values[index]
        if value.datatype not in _FLOATS:
            return torch.cat(list(self._rows(index)))
        data = bytearray(self._graph.constant(value.constant))
        numbers = torch.frombuffer(data, dtype=_FLOATS[value.datatype])
        return numbers.float().reshape(value.shape)

    def _rows(self, index: int) -> Iterator[torch.Tensor]:
        """Those of a constant matrix in float32, some at a time."""
        value = self._graph.values[index]
        if value.datatype in _FLOATS:
            yield self._constant(index)
            return
        data = self._graph.constant(value.constant)
        rows, columns = value.shape
        stored = np.frombuffer(data, np.uint8).reshape(rows, -1)
        scales = self._scales(value).reshape(rows, -1, 1)
        count = max(1, _AT_ONCE // columns)
        for at in range(0, rows, count):
            some = stored[at : at + count]
            if value.datatype == _INT8_CHANNELS:
                weight = torch.from_numpy(some.view(np.int8).astype(np.float32))
            else:
                weight = torch.from_numpy(_PAIRS.take(some, mode="clip").view(np.float32))
            weight.view(len(some), scales.shape[1], -1).mul_(scales[at : at + count])
            yield weight[:, :columns]

    def _scales(self, value: XnnpackValue) -> torch.Tensor:
        """float32 [N] of channels, or of all groups [N * groups]."""
        said = value.quantization
        assert said is not None
        in_groups = value.datatype == _INT4_GROUPS
        if not said.scale_buffer_idx:
            scales = torch.tensor(said.scale)
        else:
            dtype = torch.bfloat16 if in_groups else torch.float32
            stored = bytearray(self._graph.constant(said.scale_buffer_idx))
            scales = torch.frombuffer(stored, dtype=dtype).float()
        rows, columns = value.shape
        count = rows * columns // said.group_size if in_groups else rows
        if len(scales) != count or said.num_scales not in (0, count):
            raise ValueError(f"{len(scales)} scales, {said.num_scales} stated, expected {count}")
        return scales

    def _require_known(self, value: XnnpackValue) -> None:
        said, kind = value.quantization, value.datatype
        if kind == _DYNAMIC_INT8 and said is not None and not value.constant:
            known = said.table == "PerTokenDynamicQuant" and said.num_nonbatch_dims == 1
        elif kind == _INT4_GROUPS and said is not None and value.constant:
            known = said.table == "PerChannelGroupQuant" and said.channel_dim == 0
        elif kind in (_INT8_CHANNELS, _INT4_CHANNELS) and said is not None and value.constant:
            known = said.table == "PerChannelQuant" and said.channel_dim == 0
        else:
            known = kind in _FLOATS and said is None
        if not known:
            raise UnknownNode(f"an XNNPACK value of data type {kind}")


def _require_known_node(node: Record) -> None:
    kind = node.table
    known = kind in (*_UNARY, *_BINARY, *_STATIC, "XNNFullyConnected")
    if not known and not kind.startswith("XNNConcatenate"):
        raise UnknownNode(f"XNNPACK's {kind.removeprefix('XNN')}")
    if node.flags:
        raise UnknownNode(f"XNNPACK's {kind.removeprefix('XNN')} with the flags {node.flags}")
