"""Checks that values which a method plans into the same memory are not needed at the same time.

Outside of delegates a runtime keeps each tensor in the bytes that the program plans for it. If a
tensor is written there while another one is still needed, the other is lost, perhaps only in calls
of some lengths. Except for views, ExecuTorch's planning never places two tensors in the same bytes
if one is read or written by the instruction that writes the other (`memory_planning.py` of
ExecuTorch 1.5).
"""

import math
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from itertools import product

from quatrain.program.container import Program
from quatrain.program.file.flatbuffer import Record
from quatrain.program.plan.method_steps import Step, method_steps
from quatrain.program.scalar_types import ITEM_SIZES, NAMES
from quatrain.program.vulkan.elementwise import ELEMENTWISE

_SHARED_MEMORY = 2  # memory_id, of `MemoryPlanningPass.run_multimethod`


@dataclass(frozen=True)
class _Place:
    """Bytes `start` to `end` of the memory `memory_id`."""

    memory_id: int
    start: int
    end: int

    def overlaps(self, other: "_Place") -> bool:
        """Never where one is empty."""
        shared = min(self.end, other.end) - max(self.start, other.start)
        return self.memory_id == other.memory_id and shared > 0


_Places = dict[int, list[_Place]]  # by value


def method_memory_problems(program: Program) -> list[str]:
    """What methods write over something else that is still to be read, and caches of several
    operators, in words for people."""
    problems = []
    for plan in program.root.execution_plan or ():
        method = program.methods[plan.name or ""]
        steps = method_steps(plan, method, program.delegates) or []
        problems += [
            f"{_text(plan, value)} of method {method.name}, is the cache of several operators"
            for value in _shared_caches(plan, steps)
        ]
        for first, written in _conflicts(plan, steps):
            problems.append(
                f"{_text(plan, written)} of method {method.name}, is written over "
                f"{_text(plan, first)}, which is still to be read"
            )
    return problems


def methods_with_own_state(program: Program) -> set[str]:
    """The methods that keep values in their planned memory from call to call, such as KV caches
    outside of delegates; not those in the memory that ExecuTorch's planning shares among methods
    (`share_mutable_buffers`)."""
    return {
        plan.name or ""
        for plan in program.root.execution_plan or ()
        if any(place.memory_id != _SHARED_MEMORY for place in _state(plan, program))
    }


def _state(plan: Record, program: Program) -> list[_Place]:
    steps = method_steps(plan, program.methods[plan.name or ""], program.delegates) or []
    places = _planned(plan)
    _, lasting = _without_views(steps, [*(plan.inputs or ())], places)
    return [place for value in lasting for place in places[value]]


def _planned(plan: Record) -> _Places:
    values = [value.val for value in plan.values or ()]
    return {i: [place] for i, value in enumerate(values) if (place := _place(value)) is not None}


def _shared_caches(plan: Record, steps: list[Step]) -> list[int]:
    """Caches that are changed where an earlier instruction changes one."""
    places, shared = list[_Place | None](), list[int]()
    for value in (value for step in steps for value in sorted(step.changed)):
        place = _place(plan.values[value].val)
        if place is not None and place in places:
            shared.append(value)
        places.append(place)
    return shared


def _conflicts(plan: Record, steps: list[Step]) -> list[tuple[int, int]]:
    """Pairs of values: the second is written over the first, which is still to be read."""
    values = [value.val for value in plan.values or ()]
    inputs = [*(plan.inputs or ())]
    places = _planned(plan)
    steps, lasting = _without_views(steps, inputs, places)
    _add_aliases(places, steps)
    needed = _needed_after(steps, {*(plan.outputs or ())}, lasting)
    found: set[tuple[int, int]] = set()
    at_first = [*inputs, *sorted(lasting)]  # there before anything is computed
    for index, written in enumerate(at_first):
        pairs = _overwritten(places, written, {*at_first[:index]})
        # Several views of one cache are in one place.
        found |= {
            pair
            for pair in pairs
            if not lasting.issuperset(pair) or places[pair[0]] != places[written]
        }
    for step, after in zip(steps, needed, strict=True):
        for written in () if step.is_alias else step.written:
            beside = (after | step.read | step.written) - {written}
            found |= {
                (first, written)
                for first, _ in _overwritten(places, written, beside)
                if first in after or not _is_in_place(step, values, first, written)
            }
    return sorted(found)


def _without_views(
    steps: list[Step], inputs: list[int], places: _Places
) -> tuple[list[Step], set[int]]:
    """(`steps` that read what views are of, what lasts from call to call).

    What is read and never written is another view of what was written last to that very place, for
    which a program has no instruction where sizes do not change, or else a KV cache.
    """
    latest = {tuple(places[i]): i for i in inputs if i in places}
    written, view_of, lasting = {*inputs}, dict[int, int](), set[int]()
    found = []
    for step in steps:
        for value in step.read - written - view_of.keys():
            if value in places:
                viewed = latest.get(tuple(places[value]))
                if viewed is None:
                    lasting.add(value)
                else:
                    view_of[value] = viewed
        found.append(replace(step, read=frozenset(view_of.get(i, i) for i in step.read)))
        written |= step.written
        latest |= {tuple(places[i]): i for i in step.written if i in places}
    return found, lasting


def _add_aliases(places: _Places, steps: list[Step]) -> None:
    """Another name of a value lies where that does too."""
    for step in steps:
        for written in step.written if step.is_alias else ():
            own = places.setdefault(written, [])
            own += [one for read in step.read for one in places.get(read, ()) if one not in own]


def _needed_after(steps: list[Step], at_the_end: set[int], lasting: set[int]) -> list[set[int]]:
    """The values that are still needed after each of `steps`. Jumps go only forward."""
    before = [at_the_end | lasting for _ in range(len(steps) + 1)]
    after = [set[int]() for _ in steps]
    for index in reversed(range(len(steps))):
        step = steps[index]
        after[index] = set(before[index + 1])
        if step.goes_to is not None and index < step.goes_to <= len(steps):
            after[index] |= before[step.goes_to]
        before[index] = (after[index] - step.written) | step.read | lasting
    return after


def _overwritten(places: _Places, written: int, needed: Set[int]) -> Iterator[tuple[int, int]]:
    """The `needed` values over which `written` is."""
    for value in needed if written in places else ():
        pairs = product(places.get(value, ()), places[written])
        if any(one.overlaps(other) for one, other in pairs):
            yield value, written


def _is_in_place(step: Step, values: list[Record | None], first: int, written: int) -> bool:
    """Whether `step` reads each element of `first` right where it writes it."""
    forms = [
        (value.scalar_type, tuple(value.sizes or ()), _place(value))
        for value in (values[first], values[written])
        if value is not None and value.table == "Tensor"
    ]
    return step.operator in ELEMENTWISE and len(forms) == 2 and forms[0] == forms[1]


def _place(value: Record | None) -> _Place | None:
    planned = getattr(value, "allocation_info", None)
    if value is None or planned is None or value.scalar_type not in ITEM_SIZES:
        return None
    start = (planned.memory_offset_high << 32) + planned.memory_offset_low
    size = math.prod(value.sizes or ()) * ITEM_SIZES[value.scalar_type]
    return _Place(planned.memory_id, start, start + size)


def _text(plan: Record, index: int) -> str:
    value = plan.values[index].val
    if value is None or value.table != "Tensor":
        return f"value {index}, {value.table if value else 'nothing'} in place of a tensor"
    return f"value {index}, {NAMES.get(value.scalar_type, value.scalar_type)}{list(value.sizes)}"
