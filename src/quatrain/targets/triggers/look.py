"""Looks for a defect's trigger in all of a program's Vulkan delegates."""

from collections.abc import Callable
from dataclasses import replace

from quatrain.errors import UNFIT, InputError
from quatrain.program import Program
from quatrain.program.delegate_places import delegate_places
from quatrain.targets.catalogue import Defect, GpuProfile
from quatrain.targets.triggers.method_triggers import METHOD_TRIGGERS
from quatrain.targets.triggers.occurrence import Occurrence, Where
from quatrain.targets.triggers.triggers import GPU_TRIGGERS, TRIGGERS


def cached_trigger(
    program: Program, defect: Defect, runtime: str | None
) -> Callable[[GpuProfile], list[Occurrence]]:
    """What the trigger finds, looked for once where that does not depend on the GPU."""
    found: dict[str, list[Occurrence]] = {}

    def occurrences_on(gpu: GpuProfile) -> list[Occurrence]:
        key = gpu.id if defect.trigger in GPU_TRIGGERS else ""
        if key not in found:
            found[key] = _occurrences(program, defect, Where(gpu, runtime))
        return found[key]

    return occurrences_on


def _occurrences(program: Program, defect: Defect, where: Where) -> list[Occurrence]:
    """Over all of the program's graphs. Raises `InputError` for one whose operators' arguments do
    not fit them, such as a product of numbers."""
    trigger, places = TRIGGERS[defect.trigger], delegate_places(program)
    if trigger in METHOD_TRIGGERS:
        places = [("", places[0][1])]
    try:
        return [
            replace(each, where=place + each.where)
            for place, graph in places
            for each in trigger(program, graph, where)
        ]
    except UNFIT as error:
        raise InputError(
            f"{program.path}: an operator ({', '.join(defect.operators) or 'of any kind'}) has "
            f"arguments that do not fit it, as was seen while looking for {defect.id} "
            f"({type(error).__name__}: {error}); is the program damaged? Export it again"
        ) from error
