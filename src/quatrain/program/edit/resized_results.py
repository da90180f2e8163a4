"""Writes what the runtime leaves in the sizes of the longest call in operators that it resizes.

It has no resize function for `aten.split_with_sizes_copy`, nor for `aten.squeeze_copy` of the first
dimension in a texture, which it computes as a copy of the same rank: every shorter call, a decode
step among them, computes on with rows of no token. Sources: `impl/Split.cpp`, `Squeeze.cpp` and
`Clone.cpp` of ExecuTorch 1.1 to 1.5, measured on its runtime.
"""

from itertools import accumulate

from quatrain.program.graph import Operator, Plain, Tensor, ValueList, VulkanGraph


def is_resized(graph: VulkanGraph, operator: Operator) -> bool:
    """Whether the runtime cuts the results of the operator to a call's length."""
    if operator.kind == "aten.squeeze_copy":
        x = graph.values[operator.args[0]]
        in_texture = isinstance(x, Tensor) and x.storage != "buffer"
        return not (in_texture and _numbers(graph, operator.args[1]) == [0])
    return operator.kind != "aten.split_with_sizes_copy"


def make_resized(graph: VulkanGraph) -> int:
    """Replace such operators by slices and selections, in place; how many were replaced.

    A split into sizes that the graph computes stays.
    """
    before = graph.operators
    graph.operators = [part for operator in before for part in _written_anew(graph, operator)]
    kept = {id(operator) for operator in graph.operators}
    return sum(id(operator) not in kept for operator in before)


def _written_anew(graph: VulkanGraph, operator: Operator) -> list[Operator]:
    """`operator`, or those that give what it gives."""
    if is_resized(graph, operator):
        return [operator]
    if operator.kind == "aten.squeeze_copy":
        zero = _plain(graph, 0)
        args = (operator.args[0], zero, zero, operator.out)
        return [Operator("aten.select_copy.int", args)]
    sizes = _numbers(graph, operator.named_args["split_sizes"])
    return [operator] if sizes is None else _slices(graph, operator, sizes)


def _slices(graph: VulkanGraph, split: Operator, sizes: list[int]) -> list[Operator]:
    names, ends, step = split.named_args, list(accumulate(sizes)), _plain(graph, 1)
    return [
        Operator(
            "aten.slice_copy.Tensor",
            (names["x"], names["dim"], _plain(graph, start), _plain(graph, end), step, part),
        )
        for part, start, end in zip(graph.outputs_of(split), [0, *ends], ends, strict=False)
    ]


def _plain(graph: VulkanGraph, value: int) -> int:
    graph.values.append(Plain("int", value))
    return len(graph.values) - 1


def _numbers(graph: VulkanGraph, value_id: int) -> list[int] | None:
    """A list of fixed numbers, however it is stored; None where one is computed."""
    value = graph.values[value_id]
    if isinstance(value, ValueList):
        items = [graph.values[item] for item in value.items]
        numbers = [item.value for item in items if isinstance(item, Plain)]
    else:
        items = numbers = value.value if isinstance(value, Plain) else ()
    if not isinstance(numbers, list | tuple) or len(numbers) != len(items):
        return None
    return [number for number in numbers if isinstance(number, int)] or None
