"""Drops what a graph no longer uses and numbers the rest anew."""

from dataclasses import replace

from quatrain.program.graph import Tensor, ValueList, VulkanGraph


def compact(graph: VulkanGraph) -> None:
    """Remove the values and constants that nothing refers to; ids stay in their order."""
    used = {*graph.inputs, *graph.outputs}
    for operator in graph.operators:
        used.update(operator.args)
    for value_id in list(used):
        value = graph.values[value_id]
        if isinstance(value, ValueList):
            used.update(value.items)
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
    _compact_constants(graph)
    _compact_memory(graph)


def _compact_constants(graph: VulkanGraph) -> None:
    used = {v.constant for v in graph.values if isinstance(v, Tensor) and v.constant is not None}
    new_id = {old: new for new, old in enumerate(sorted(used))}
    graph.constants = [graph.constants[old] for old in sorted(used)]
    graph.values = [
        replace(v, constant=new_id[v.constant])
        if isinstance(v, Tensor) and v.constant is not None
        else v
        for v in graph.values
    ]


def _compact_memory(graph: VulkanGraph) -> None:
    """Number the shared memory objects without gaps, so that none is made for nothing."""
    used = {v.mem_obj_id for v in graph.values if isinstance(v, Tensor)} - {None}
    new_id = {old: new for new, old in enumerate(sorted(i for i in used if i is not None))}
    graph.values = [
        replace(v, mem_obj_id=new_id[v.mem_obj_id])
        if isinstance(v, Tensor) and v.mem_obj_id is not None
        else v
        for v in graph.values
    ]


def remove_unread(graph: VulkanGraph, *kinds: str) -> None:
    """Remove the operators of `kinds` none of whose outputs is read, and what only they read."""
    before = None
    while before != len(graph.operators):
        before = len(graph.operators)
        read = {*graph.outputs}
        for operator in graph.operators:
            for value_id in operator.args[:-1]:
                value = graph.values[value_id]
                read.update(value.items if isinstance(value, ValueList) else (value_id,))
        graph.operators = [
            operator
            for operator in graph.operators
            if operator.kind not in kinds or read.intersection(graph.outputs_of(operator))
        ]
