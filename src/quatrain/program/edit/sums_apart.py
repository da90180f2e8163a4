"""Sums of groups that are stored for more output channels than the 8da4w kernel steps over."""

from dataclasses import replace

from quatrain.int4 import CHANNELS_TOGETHER
from quatrain.program.container import Program
from quatrain.program.edit.compact import compact
from quatrain.program.graph import Operator, VulkanGraph
from quatrain.program.linear_kernels import DYNAMIC_LINEAR


def are_sums_apart(graph: VulkanGraph, operator: Operator) -> bool:
    """Whether all groups of a dynamic int4 linear but the first get others' sums: it steps from
    group to group over its output channels, filled up to a multiple of 4."""
    groups, stored = graph.tensor(operator.named_args["weight_sums"]).shape
    return groups > 1 and stored != _stepped_over(graph, operator)


def join_sums(program: Program, graph: VulkanGraph) -> int:
    """Store sums of groups as they are read, in place; of how many linears of `graph`."""
    found = 0
    for index, operator in enumerate(graph.operators):
        if operator.kind == DYNAMIC_LINEAR and are_sums_apart(graph, operator):
            old = operator.named_args["weight_sums"]
            sums = graph.constant(old)[:, : _stepped_over(graph, operator)].copy()
            new = graph.add_constant(program.add_data(sums.tobytes()), "int32", sums.shape)
            args = tuple(new if value == old else value for value in operator.args)
            graph.operators[index] = replace(operator, args=args)
            found += 1
    if found:
        compact(graph)
    return found


def _stepped_over(graph: VulkanGraph, operator: Operator) -> int:
    channels = graph.tensor(operator.out).shape[-1]
    return channels + -channels % CHANNELS_TOGETHER
