"""Computes once what several operators compute alike.

Each layer asks for its own attention mask: of one window all are the same function of the position.
ExecuTorch's exporter asks for quantization parameters once per linear: query, key and value read
one activation, gate and up another; of a layer's seven `choose_qparams` four are distinct.
"""

from dataclasses import replace
from typing import Any

from quatrain.program.edit.compact import remove_unread
from quatrain.program.vulkan.def_use import DefUse
from quatrain.program.vulkan.graph import Plain, Tensor, ValueList, VulkanGraph
from quatrain.program.vulkan.linear_kernels import CHOOSE_QPARAMS
from quatrain.program.vulkan.memory import assign_memory


def share_masks(graph: VulkanGraph) -> None:
    """Let every operator of `graph` use the first of the masks that are computed alike."""
    substitute = _equal_results(graph, "aten.where")
    _use_first(graph, substitute, _kinds_before(graph, list(substitute)))


def share_qparams(graph: VulkanGraph) -> None:
    """Let every linear of `graph` use the first of the equal `choose_qparams` of its input."""
    _use_first(graph, _equal_results(graph, CHOOSE_QPARAMS), {CHOOSE_QPARAMS})


def _equal_results(graph: VulkanGraph, kind: str) -> dict[int, int]:
    """For each result of operators of `kind` that is computed again: the first that is equal."""
    alike = _numbers_of_equal_values(graph)
    first: dict[int, int] = {}
    results = [i for op in graph.operators if op.kind == kind for i in graph.outputs_of(op)]
    equal = {result: first.setdefault(alike[result], result) for result in results}
    return {result: kept for result, kept in equal.items() if result != kept}


def _use_first(graph: VulkanGraph, substitute: dict[int, int], kinds: set[str]) -> None:
    """Let `graph` read the values of `substitute` in place of its keys, and remove operators of
    `kinds` whose results nothing reads then."""
    if not substitute:
        return
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
