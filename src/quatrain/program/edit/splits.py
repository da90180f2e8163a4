"""Cuts with slices what splits cut: a split's parts keep the sizes of the longest call.

The runtime gives `aten.split_with_sizes_copy` no resize function, so that every shorter call, a
decode step among them, computes on with rows of no token. Source: `impl/Split.cpp` of ExecuTorch
1.1 to 1.5, measured on its runtime.
"""

from itertools import accumulate

from quatrain.program.graph import Operator, Plain, VulkanGraph

_SPLIT = "aten.split_with_sizes_copy"


def is_split(operator: Operator) -> bool:
    """Whether the operator is a split into several parts."""
    return operator.kind == _SPLIT


def slice_splits(graph: VulkanGraph) -> int:
    """Replace the splits of `graph` into fixed sizes, in place; how many there were."""
    before = graph.operators
    graph.operators = [part for operator in before for part in _sliced(graph, operator)]
    return sum(map(is_split, before)) - sum(map(is_split, graph.operators))


def _sliced(graph: VulkanGraph, operator: Operator) -> list[Operator]:
    """`operator`, or the slices that give what it gives."""
    sizes = graph.values[operator.named_args["split_sizes"]] if is_split(operator) else None
    if not isinstance(sizes, Plain) or not isinstance(sizes.value, list | tuple):
        return [operator]
    names, parts = operator.named_args, graph.outputs_of(operator)
    ends = list(accumulate(sizes.value))
    graph.values.append(Plain("int", 1))
    step = len(graph.values) - 1
    slices = []
    for part, start, end in zip(parts, [0, *ends], ends, strict=False):
        graph.values += [Plain("int", start), Plain("int", end)]
        first = len(graph.values) - 2
        args = (names["x"], names["dim"], first, first + 1, step, part)
        slices.append(Operator("aten.slice_copy.Tensor", args))
    return slices
