"""Computes the mask of attention once for all layers that have the same.

Each layer asks for its own: of one window all are the same function of the position.
"""

from dataclasses import replace
from typing import Any

from quatrain.program.def_use import DefUse
from quatrain.program.edit.compact import remove_unread
from quatrain.program.graph import Plain, Tensor, ValueList, VulkanGraph
from quatrain.program.memory import assign_memory

_MASK = "aten.where"


def share_masks(graph: VulkanGraph) -> None:
    """Let every operator of `graph` use the first of the masks that are computed alike."""
    made_by = _Made(graph)
    first: dict[Any, int] = {}
    substitute: dict[int, int] = {}
    for operator in graph.operators:
        if operator.kind == _MASK:
            kept = first.setdefault(made_by.key(operator.out), operator.out)
            if kept != operator.out:
                substitute[operator.out] = kept
    if not substitute:
        return
    kinds = made_by.kinds_before(list(substitute))
    graph.operators = [
        replace(op, args=tuple(substitute.get(i, i) for i in op.args[:-1]) + op.args[-1:])
        for op in graph.operators
    ]
    remove_unread(graph, *kinds)
    # They live longer now; what they shared may be in use.
    assign_memory(graph, sorted(set(substitute.values())))


class _Made:
    """How values of a graph are made: by which operators, from which constants and numbers."""

    def __init__(self, graph: VulkanGraph):
        self.graph = graph
        self.def_use = DefUse(graph)
        self.known: dict[int, Any] = {}

    def key(self, value_id: int) -> Any:
        """Equal for values that are made alike."""
        if value_id not in self.known:
            self.known[value_id] = value_id  # what a damaged graph makes of itself is unlike others
            self.known[value_id] = self._key(value_id)
        return self.known[value_id]

    def _key(self, value_id: int) -> Any:
        value = self.graph.values[value_id]
        if isinstance(value, Plain):
            return str(value)
        if isinstance(value, ValueList):
            return tuple(map(self.key, value.items))
        place = self.def_use.producer.get(value_id)
        if place is None:
            return value_id
        operator = self.graph.operators[place]
        made = replace(value, mem_obj_id=None) if isinstance(value, Tensor) else None
        return operator.name, *map(self.key, operator.args[:-1]), str(made)

    def kinds_before(self, values: list[int]) -> set[str]:
        """The kinds of the operators that make `values`, and what these are made of."""
        waiting, kinds, seen = list(values), set(), set()
        while waiting:
            place = self.def_use.producer.get(waiting.pop())
            if place is None or place in seen:
                continue
            seen.add(place)
            operator = self.graph.operators[place]
            kinds.add(operator.kind)
            waiting += self.def_use.inputs_of(operator)
        return kinds
