"""The live range of each value, and which values may share memory.

Values of one `mem_obj_id` share one memory object in the runtime, so their live ranges must not
overlap. An operator's output must not share with its inputs either, and never does in what
ExecuTorch plans.
"""

from dataclasses import dataclass, replace

from quatrain.program.vulkan.def_use import DefUse
from quatrain.program.vulkan.elementwise import may_write_over
from quatrain.program.vulkan.graph import Tensor, VulkanGraph


@dataclass(frozen=True)
class LiveRange:
    """The operators, by index, that first write and last read a value (both included)."""

    start: int
    end: int

    def overlaps(self, other: "LiveRange") -> bool:
        """Whether both values are needed at the same time."""
        return self.start <= other.end and other.start <= self.end


def live_ranges(graph: VulkanGraph) -> dict[int, LiveRange]:
    """Of each tensor that is computed or given; constants live outside of this. What is prepacked
    is written as the program is loaded, and read in every call from then on."""
    def_use = DefUse(graph)
    end_of_run = len(graph.operators)
    found: dict[int, LiveRange] = {}
    for value_id, value in enumerate(graph.values):
        if not isinstance(value, Tensor) or value.constant is not None:
            continue
        users = def_use.consumers.get(value_id, [])
        start = -1 if value_id in graph.inputs else def_use.producer.get(value_id)
        if start is None:
            continue
        is_prepacked = start >= 0 and graph.operators[start].kind == "et_vk.prepack"
        if is_prepacked:
            start = -1
        stays = is_prepacked or value_id in graph.outputs
        found[value_id] = LiveRange(start, end_of_run if stays else max([start, *users]))
    return found


def memory_conflicts(graph: VulkanGraph, in_place: bool = False) -> list[tuple[int, int]]:
    """Pairs of values that share memory although both are needed at the same time; with `in_place`
    one may be written over another by the operator that reads this last, if element by element."""
    groups: dict[int, list[tuple[LiveRange, int]]] = {}
    for value_id, live in live_ranges(graph).items():
        mem_obj_id = graph.tensor(value_id).mem_obj_id
        if mem_obj_id is not None:
            groups.setdefault(mem_obj_id, []).append((live, value_id))
    conflicts = []
    for members in groups.values():
        members.sort(key=lambda member: (member[0].start, member[0].end))
        latest = members[0]
        for member in members[1:]:
            live, value_id = member
            is_last_read = in_place and live.start == latest[0].end >= 0
            if live.start <= latest[0].end and not (
                is_last_read and may_write_over(graph, graph.operators[live.start], latest[1])
            ):
                conflicts.append((latest[1], value_id))
            if live.end >= latest[0].end:
                latest = member
    return conflicts


def unused_memory(graph: VulkanGraph) -> int:
    """A memory object id that no value of `graph` has, nor any above it."""
    taken = [value.mem_obj_id for value in graph.values if isinstance(value, Tensor)]
    return 1 + max((memory for memory in taken if memory is not None), default=-1)


def assign_memory(graph: VulkanGraph, value_ids: list[int]) -> None:
    """Give `value_ids` memory objects of their own, as few as their live ranges allow."""
    fresh = unused_memory(graph)
    found = live_ranges(graph)
    free_after: list[int] = []  # per new object: the last operator that needs it
    for value_id in sorted(value_ids, key=lambda i: found[i].start):
        live = found[value_id]
        index = next((i for i, end in enumerate(free_after) if end < live.start), None)
        if index is None:
            index = len(free_after)
            free_after.append(live.end)
        free_after[index] = live.end
        graph.values[value_id] = replace(graph.tensor(value_id), mem_obj_id=fresh + index)


def reuse_memory(graph: VulkanGraph, value_ids: list[int]) -> None:
    """Give `value_ids` memory objects that others of their shape and type have, and that are free
    while these are needed; new ones where there is none."""
    found = live_ranges(graph)
    taken: dict[int, list[LiveRange]] = {}
    forms: dict[int, set[Tensor]] = {}
    for value_id, live in found.items():
        tensor = graph.tensor(value_id)
        if tensor.mem_obj_id is not None:
            taken.setdefault(tensor.mem_obj_id, []).append(live)
            forms.setdefault(tensor.mem_obj_id, set()).add(replace(tensor, mem_obj_id=None))
    homeless = []
    for value_id in sorted(value_ids, key=lambda i: found[i].start):
        live, form = found[value_id], replace(graph.tensor(value_id), mem_obj_id=None)
        free = (
            memory
            for memory in sorted(taken)
            if form in forms[memory] and not any(live.overlaps(other) for other in taken[memory])
        )
        memory = next(free, None)
        if memory is None:
            homeless.append(value_id)
            continue
        taken[memory].append(live)
        graph.values[value_id] = replace(graph.tensor(value_id), mem_obj_id=memory)
    assign_memory(graph, homeless)
