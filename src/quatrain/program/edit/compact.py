"""Removes unused values of a graph and numbers the others again."""

from dataclasses import replace

from quatrain.program.vulkan.graph import Tensor, ValueList, VulkanGraph


def compact(graph: VulkanGraph) -> None:
    """Remove the values and constants that nothing refers to; ids stay in their order."""
    used = {*graph.inputs, *graph.outputs}
    for operator in graph.operators:
        used.update(operator.args)
    used.update(graph.flat(used))
    new_id = {old: new for new, old in enumerate(sorted(used))}
    graph.values = [graph.values[old] for old in sorted(used)]
    graph.values = [
        ValueList(tuple(new_id[i] for i in value.items)) if isinstance(value, ValueList) else value
        for value in graph.values
    ]
    graph.operators = [
        replace(operator, args=tuple(new_id[i] for i in operator.args))
        for operator in graph.operators
    ]
    graph.inputs = [new_id[i] for i in graph.inputs]
    graph.outputs = [new_id[i] for i in graph.outputs]
    graph.constants = [graph.constants[old] for old in _renumber(graph, "constant")]
    _renumber(graph, "mem_obj_id")


def _renumber(graph: VulkanGraph, attribute: str) -> list[int]:
    """Let the numbers that tensors have in `attribute` have no gaps, so that no memory is made for
    nothing; those that there were, in order."""
    tensors = [value for value in graph.values if isinstance(value, Tensor)]
    used = sorted({getattr(tensor, attribute) for tensor in tensors} - {None})
    new = {old: number for number, old in enumerate(used)}
    graph.values = [
        replace(value, **{attribute: new.get(getattr(value, attribute))})
        if isinstance(value, Tensor)
        else value
        for value in graph.values
    ]
    return used


def remove_unread(graph: VulkanGraph, *kinds: str) -> None:
    """Remove the operators of `kinds` none of whose outputs is read, and what only they read."""
    before = None
    while before != len(graph.operators):
        before = len(graph.operators)
        read = {*graph.outputs}
        for operator in graph.operators:
            read.update(graph.inputs_of(operator))
        graph.operators = [
            operator
            for operator in graph.operators
            if operator.kind not in kinds or read.intersection(graph.outputs_of(operator))
        ]
