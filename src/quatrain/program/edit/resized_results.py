"""Replaces operators whose results the runtime does not resize for shorter calls.

It has no resize function for `aten.split_with_sizes_copy`, nor for `aten.squeeze_copy` of the first
dimension in a texture, which it computes as a copy of the same rank: every shorter call, a decode
step among them, computes on with rows of no token. Sources: `impl/Split.cpp`, `Squeeze.cpp` and
`Clone.cpp` of ExecuTorch 1.1 to 1.5, measured on its runtime.
"""

from itertools import accumulate

from quatrain.program.vulkan.def_use import DefUse
from quatrain.program.vulkan.graph import Operator, Plain, SymInt, Tensor, ValueList, VulkanGraph


def is_resized(graph: VulkanGraph, operator: Operator) -> bool:
    """Whether the runtime cuts the results of the operator to a call's length."""
    if operator.kind == "aten.squeeze_copy":
        x = graph.values[operator.args[0]]
        in_texture = isinstance(x, Tensor) and x.storage != "buffer"
        return not (in_texture and _numbers(graph, operator.args[1]) == [0])
    return operator.kind != "aten.split_with_sizes_copy"


def is_read_in_call_sizes(graph: VulkanGraph, split: Operator, def_use: DefUse) -> bool:
    """Whether the readers of the parts of a `split` use only a call's rows: views with sizes that
    the graph computes, of parts whose rows of tokens are contiguous, those of the call first."""
    taken = [value.shape for i in graph.inputs if isinstance(value := graph.values[i], Tensor)]
    length = next((shape[1] for shape in taken if len(shape) > 1), 0)
    parts = graph.outputs_of(split)
    readers = [index for part in parts for index in def_use.consumers.get(part, ())]
    shapes = [part.shape for i in parts if isinstance(part := graph.values[i], Tensor)]
    in_one_run = all(next((size for size in shape if size > 1), 0) == length for shape in shapes)
    viewed = all(_is_view_in_call_sizes(graph, graph.operators[index]) for index in readers)
    return in_one_run and viewed and not set(parts) & set(graph.outputs)


def _is_view_in_call_sizes(graph: VulkanGraph, operator: Operator) -> bool:
    sizes = graph.values[operator.args[1]] if operator.kind == "aten.view_copy" else None
    items = [graph.values[item] for item in sizes.items] if isinstance(sizes, ValueList) else []
    # One that is left open follows from how many elements there are: of the longest call.
    open_size = any(isinstance(item, Plain) and item.value == -1 for item in items)
    return any(isinstance(item, SymInt) for item in items) and not open_size


def make_resized(graph: VulkanGraph) -> int:
    """Replace such operators by slices and selections, in place; how many were replaced.

    A split into sizes that the graph computes stays.
    """
    before = graph.operators
    graph.operators = [part for operator in before for part in _replacements(graph, operator)]
    kept = {id(operator) for operator in graph.operators}
    return sum(id(operator) not in kept for operator in before)


def _replacements(graph: VulkanGraph, operator: Operator) -> list[Operator]:
    """`operator`, or those that give what it gives."""
    if is_resized(graph, operator):
        return [operator]
    if operator.kind == "aten.squeeze_copy":
        zero = graph.add(Plain("int", 0))
        args = (operator.args[0], zero, zero, operator.out)
        return [Operator("aten.select_copy.int", args)]
    sizes = _numbers(graph, operator.named_args["split_sizes"])
    return [operator] if sizes is None else _slices(graph, operator, sizes)


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
