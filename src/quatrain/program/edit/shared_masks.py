"""Computes equal attention masks once for all layers.

Each layer asks for its own: of one window all are the same function of the position.
"""

from dataclasses import replace
from typing import Any

from quatrain.program.edit.compact import remove_unread
from quatrain.program.vulkan.def_use import DefUse
from quatrain.program.vulkan.graph import Plain, Tensor, ValueList, VulkanGraph
from quatrain.program.vulkan.memory import assign_memory

_MASK = "aten.where"


def share_masks(graph: VulkanGraph) -> None:
    """Let every operator of `graph` use the first of the masks that are computed alike."""
    alike = _numbers_of_equal_values(graph)
    first: dict[int, int] = {}
    substitute: dict[int, int] = {}
    for operator in graph.operators:
        if operator.kind == _MASK and operator.out in alike:
            kept = first.setdefault(alike[operator.out], operator.out)
            if kept != operator.out:
                substitute[operator.out] = kept
    if not substitute:
        return
    kinds = _kinds_before(graph, list(substitute))
    graph.operators = [
        replace(op, args=tuple(substitute.get(i, i) for i in op.args[:-1]) + op.args[-1:])
        for op in graph.operators
    ]
    remove_unread(graph, *kinds)
    # They live longer now; what they shared may be in use.
    assign_memory(graph, sorted(set(substitute.values())))


def _numbers_of_equal_values(graph: VulkanGraph) -> dict[int, int]:
    """A number for each value that an operator makes, equal for those that are made alike: by the
    same operators, from the same constants and numbers."""
    numbers: dict[Any, int] = {}  # the kind of a value: a number if it is computed from others
    made: dict[int, int] = {}

    def number_of(value_id: int) -> int:
        value = graph.values[value_id]
        if isinstance(value, Plain):
            return numbers.setdefault(str(value), len(numbers))
        if value_id in made:
            return made[value_id]
        return numbers.setdefault(value_id, len(numbers))

    def number_of_arg(value_id: int) -> int:
        value = graph.values[value_id]
        if isinstance(value, ValueList):
            return numbers.setdefault(tuple(map(number_of, value.items)), len(numbers))
        return number_of(value_id)

    for operator in graph.operators:
        of_args = tuple(map(number_of_arg, operator.args[:-1]))
        for place, value_id in enumerate(graph.outputs_of(operator)):
            value = graph.values[value_id]
            kind = replace(value, mem_obj_id=None) if isinstance(value, Tensor) else None
            key = (operator.name, place, *of_args, str(kind))
            made[value_id] = numbers.setdefault(key, len(numbers))
    return made


def _kinds_before(graph: VulkanGraph, values: list[int]) -> set[str]:
    """The kinds of the operators that compute `values`, and those of their inputs."""
    def_use = DefUse(graph)
    waiting, kinds, seen = list(values), set(), set()
    while waiting:
        place = def_use.producer.get(waiting.pop())
        if place is None or place in seen:
            continue
        seen.add(place)
        operator = graph.operators[place]
        kinds.add(operator.kind)
        waiting += graph.inputs_of(operator)
    return kinds
