"""Replaces operators whose results the runtime does not resize for shorter calls.

It has no resize function for `aten.split_with_sizes_copy`, nor for `aten.squeeze_copy` of the first
dimension in a texture, which it computes as a copy of the same rank, nor for `aten._to_copy` to the
same type or between floating-point types, which it blits, nor for `aten.embedding` of
channels-packed tokens: every shorter call, a decode step among them, computes on with rows of no
token. It blits no buffers at all. Sources: `impl/Split.cpp`, `Squeeze.cpp`, `Clone.cpp`,
`ToCopy.cpp`, `BlitNode.cpp` and `Embedding.cpp` of ExecuTorch 1.1 to 1.5, measured on its runtime.
"""

from dataclasses import replace
from itertools import accumulate

from quatrain.program.call_lengths import takes_calls_of_any_length
from quatrain.program.container import Program
from quatrain.program.inspect.call_shapes import CallShapes, longest_call
from quatrain.program.vulkan.def_use import DefUse
from quatrain.program.vulkan.elementwise import ELEMENTWISE
from quatrain.program.vulkan.graph import Operator, Plain, SymInt, Tensor, ValueList, VulkanGraph

_FLOATS = {"float32", "float16"}
_TIME = 2  # the dimension that a convolution of [1, channels, tokens] goes along


def is_blitted(graph: VulkanGraph, operator: Operator) -> bool:
    """Whether the operator is a conversion that the runtime blits: to the same type, or from one
    floating-point type to the other."""
    if operator.kind != "aten._to_copy":
        return False
    dtypes = {graph.tensor(operator.args[0]).dtype, graph.tensor(operator.out).dtype}
    return len(dtypes) == 1 or dtypes == _FLOATS


def is_blitted_buffer(graph: VulkanGraph, operator: Operator) -> bool:
    """Whether the operator is a blit of buffers, which the runtime refuses."""
    ends = operator.args[0], operator.out
    return is_blitted(graph, operator) and any(graph.tensor(i).storage == "buffer" for i in ends)


def is_resized(graph: VulkanGraph, operator: Operator, one: CallShapes) -> bool:
    """Whether the results of the operator have a call's sizes in the runtime; `one`: the shapes in
    a call of one token."""
    if is_blitted(graph, operator):
        frozen = not is_blitted_buffer(graph, operator)
    elif operator.kind == "aten.embedding":
        tokens = graph.tensor(operator.named_args["indices"])
        frozen = tokens.storage != "buffer" and tokens.layout == "channels_packed"
    elif operator.kind == "aten.squeeze_copy":
        x = graph.values[operator.args[0]]
        in_texture = isinstance(x, Tensor) and x.storage != "buffer"
        frozen = in_texture and _numbers(graph, operator.args[1]) == [0]
    else:
        frozen = operator.kind == "aten.split_with_sizes_copy"
    return not frozen or all(one.is_whole(i) for i in _tensors(graph, operator))


def is_read_in_call_sizes(
    graph: VulkanGraph, operator: Operator, def_use: DefUse, one: CallShapes
) -> bool:
    """Whether the readers of the operator's results, or of what is computed from them element by
    element, permuted or by causal convolutions, use only a call's rows: slices as long as the call,
    or views with sizes that the graph computes, of values whose rows of tokens are contiguous,
    those of the call first."""
    length = longest_call(graph)
    unread, seen = [(i, one.axes(i)) for i in _tensors(graph, operator)], set[int]()
    while unread:
        value_id, axes = unread.pop()
        if value_id in seen:
            continue
        seen.add(value_id)
        if value_id in graph.outputs:
            return False
        shape = graph.tensor(value_id).shape
        in_one_run = next((size for size in shape if size > 1), 0) == length
        for index in def_use.consumers.get(value_id, ()):
            reader = graph.operators[index]
            left = _left_by_slice(graph, reader, axes)
            if left is None:
                left = _moved(graph, reader, value_id, axes)
            if left is not None:
                unread += [(reader.out, left)] if left else []
            elif reader.kind in ELEMENTWISE:
                unread.append((reader.out, one.axes(reader.out)))
            elif not in_one_run or not _is_view_in_call_sizes(graph, reader):
                return False
    return True


def _tensors(graph: VulkanGraph, operator: Operator) -> list[int]:
    return [i for i in graph.outputs_of(operator) if isinstance(graph.values[i], Tensor)]


def _left_by_slice(graph: VulkanGraph, operator: Operator, axes: list[int]) -> list[int] | None:
    """Of the dimensions `axes` those that are not cut to a call's length by a slice from their
    beginning; None if the operator is no such slice."""
    if operator.kind != "aten.slice_copy":
        return None
    dim, start, end = (graph.values[i] for i in operator.args[1:4])
    if not isinstance(end, SymInt) or not isinstance(start, Plain) or start.value not in (0, None):
        return None
    return [axis for axis in axes if not isinstance(dim, Plain) or axis != dim.value]


def _moved(graph: VulkanGraph, operator: Operator, x: int, axes: list[int]) -> list[int] | None:
    """Where the dimensions `axes` of the value `x` are in the result of an operator that reads no
    place of them later than the one that it computes; None if it is no such operator."""
    names = operator.named_args
    if operator.kind == "aten.permute_copy":
        order = _numbers(graph, names["dims"]) or []
        return [order.index(axis) for axis in axes] if set(axes) <= set(order) else None
    if operator.kind == "aten.convolution" and names["x"] == x and axes == [_TIME]:
        numbers = (_numbers(graph, names[name]) for name in ("stride", "padding", "dilation"))
        stride, padding, dilation = (each or [0] for each in numbers)
        width = graph.tensor(names["weights"]).shape[-1]
        transposed = graph.plain(names["transposed"])
        along = len(graph.tensor(x).shape) == 3 and stride == [1] and not transposed
        causal = along and padding[0] >= (width - 1) * dilation[0]
        return axes if causal else None
    return None


def _is_view_in_call_sizes(graph: VulkanGraph, operator: Operator) -> bool:
    sizes = graph.values[operator.args[1]] if operator.kind == "aten.view_copy" else None
    items = [graph.values[item] for item in sizes.items] if isinstance(sizes, ValueList) else []
    # One that is left open follows from how many elements there are: of the longest call.
    open_size = any(isinstance(item, Plain) and item.value == -1 for item in items)
    return any(isinstance(item, SymInt) for item in items) and not open_size


def make_resized(program: Program, graph: VulkanGraph) -> int:
    """Replace such operators of a `graph` of `program` by slices, selections and other copies, in
    place; how many were replaced.

    A split into sizes that the graph computes stays.
    """
    longest = longest_call(graph) if takes_calls_of_any_length(program, graph) else None
    before, one, def_use = graph.operators, CallShapes(graph, 1, longest=longest), DefUse(graph)
    graph.operators = [
        part for operator in before for part in _replacements(graph, operator, def_use, one)
    ]
    kept = {id(operator) for operator in graph.operators}
    return sum(id(operator) not in kept for operator in before)


def _replacements(
    graph: VulkanGraph, operator: Operator, def_use: DefUse, one: CallShapes
) -> list[Operator]:
    """`operator`, or those that give what it gives."""
    if is_blitted_buffer(graph, operator):
        return _buffer_copy(graph, operator)
    if is_resized(graph, operator, one):
        return [operator]
    if operator.kind in ("aten._to_copy", "aten.embedding"):
        cut = is_read_in_call_sizes(graph, operator, def_use, one)
        return [operator] if cut else _cut(graph, operator, one)
    if operator.kind == "aten.squeeze_copy":
        zero = graph.add(Plain("int", 0))
        args = (operator.args[0], zero, zero, operator.out)
        return [Operator("aten.select_copy.int", args)]
    sizes = _numbers(graph, operator.named_args["split_sizes"])
    return [operator] if sizes is None else _slices(graph, operator, sizes)


def _buffer_copy(graph: VulkanGraph, blit: Operator) -> list[Operator]:
    """A copy of a buffer; between storages it stays, since no operator converts them."""
    x, out = graph.tensor(blit.args[0]), graph.tensor(blit.out)
    if x.dtype == out.dtype:
        return [_clone(graph, blit.args[0], blit.out)]
    if x.storage != "buffer" or out.storage != "buffer":
        return [blit]
    nulls = [graph.add(Plain("null")) for _ in range(6)]
    name = "dim_order_ops._to_dim_order_copy.default"
    return [replace(blit, name=name, args=(blit.args[0], *nulls, blit.out))]


def _cut(graph: VulkanGraph, operator: Operator, one: CallShapes) -> list[Operator]:
    """A copy to the same type, which is resized; of other operators, the rows of a call of the
    result."""
    x, out = operator.named_args.get("indices", operator.args[0]), operator.out
    if is_blitted(graph, operator) and graph.tensor(x).dtype == graph.tensor(out).dtype:
        return [_clone(graph, x, out)]
    whole = graph.add(replace(graph.tensor(out), mem_obj_id=None))
    operators = [replace(operator, args=(*operator.args[:-1], whole))]
    zero, step = graph.add(Plain("int", 0)), graph.add(Plain("int", 1))
    axes = one.axes(out)
    for axis in axes:
        dim, size = graph.add(Plain("int", axis)), graph.add(SymInt(graph.tensor(out).shape[axis]))
        last = axis == axes[-1]
        cut = out if last else graph.add(replace(graph.tensor(out), mem_obj_id=None))
        operators.append(Operator("sym_size.int", (x, dim, size)))
        operators.append(Operator("aten.slice_copy.Tensor", (whole, dim, zero, size, step, cut)))
        whole = cut
    return operators


def _clone(graph: VulkanGraph, x: int, out: int) -> Operator:
    return Operator("aten.clone.default", (x, graph.add(Plain("null")), out))


def _slices(graph: VulkanGraph, split: Operator, sizes: list[int]) -> list[Operator]:
    names, ends, slices = split.named_args, list(accumulate(sizes)), []
    step = graph.add(Plain("int", 1))
    for part, start, end in zip(graph.outputs_of(split), [0, *ends], ends, strict=False):
        bounds = graph.add(Plain("int", start)), graph.add(Plain("int", end))
        args = (names["x"], names["dim"], *bounds, step, part)
        slices.append(Operator("aten.slice_copy.Tensor", args))
    return slices


def _numbers(graph: VulkanGraph, value_id: int) -> list[int] | None:
    """A list of fixed numbers, however it is stored; None if one is computed."""
    value = graph.values[value_id]
    if isinstance(value, ValueList):
        items = [graph.values[item] for item in value.items]
        numbers = [item.value for item in items if isinstance(item, Plain)]
    else:
        items = numbers = value.value if isinstance(value, Plain) else ()
    if not isinstance(numbers, list | tuple) or len(numbers) != len(items):
        return None
    return [number for number in numbers if isinstance(number, int)] or None
