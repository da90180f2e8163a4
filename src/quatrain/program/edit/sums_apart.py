"""Sums of groups that are stored for more output channels, or fewer, than the 8da4w kernel steps
over."""

from dataclasses import replace

from quatrain.program.container import Program
from quatrain.program.edit.compact import compact
from quatrain.program.graph import Operator, VulkanGraph
from quatrain.program.linear_kernels import DYNAMIC_LINEAR
from quatrain.program.packed_weights import group_sums, stepped_over


def are_sums_apart(graph: VulkanGraph, operator: Operator) -> bool:
    """Whether all groups of a dynamic int4 linear but the first get others' sums: it steps from
    group to group over its output channels, filled up to a multiple of 4."""
    groups, stored = graph.tensor(operator.named_args["weight_sums"]).shape
    return groups > 1 and stored != stepped_over(graph.tensor(operator.out).shape[-1])


def join_sums(program: Program, graph: VulkanGraph) -> int:
    """Store sums of groups as they are read, in place; of how many linears of `graph`.

    They are summed anew from the weights, whatever is stored.
    """
    found = 0
    for index, operator in enumerate(graph.operators):
        if operator.kind == DYNAMIC_LINEAR and are_sums_apart(graph, operator):
            old, new = operator.named_args["weight_sums"], add_sums(program, graph, operator)
            args = tuple(new if value == old else value for value in operator.args)
            graph.operators[index] = replace(operator, args=args)
            found += 1
    if found:
        compact(graph)
    return found


def add_sums(program: Program, graph: VulkanGraph, operator: Operator) -> int:
    """The value of the sums of groups of an int4 linear's weights, added to the program's constants
    as the 8da4w kernel reads them."""
    names = operator.named_args
    sums = group_sums(graph.constant(names["weights"]), graph.integer(names["group_size"]))
    program.release_memory()
    return graph.add_constant(program.add_data(sums.tobytes()), "int32", sums.shape)
