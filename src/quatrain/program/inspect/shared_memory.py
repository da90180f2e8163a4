"""Values that a graph lays into one piece of memory although both are needed at once."""

from collections import defaultdict

from quatrain.program.def_use import DefUse
from quatrain.program.graph import Tensor, VulkanGraph


def overlaps(graph: VulkanGraph) -> list[tuple[int, int]]:
    """Pairs of values (written over, written) of one `mem_obj_id`: after the second is written an
    operator or the caller still reads the first. One that writes over what it reads is left out:
    element by element that is right."""
    def_use, spans = DefUse(graph), defaultdict(list)
    for value_id, value in enumerate(graph.values):
        if isinstance(value, Tensor) and value.mem_obj_id is not None and value.constant is None:
            first = -1 if value_id in graph.inputs else def_use.producer.get(value_id)
            if first is not None:
                last = max(def_use.consumers.get(value_id, (first,)))
                end = len(graph.operators) if value_id in graph.outputs else last
                spans[value.mem_obj_id].append((first, end, value_id))
    found = []
    for shared in spans.values():
        longest = (-1, -2, -1)
        for span in sorted(shared):
            if span[0] < longest[1]:
                found.append((longest[2], span[2]))
            longest = max(longest, span, key=lambda each: each[1])
    return found
