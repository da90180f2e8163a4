"""Finds the trigger of a defect, and runs it on all Vulkan delegates of a program."""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from quatrain.errors import UNFIT, InputError
from quatrain.program import Program
from quatrain.program.delegate_places import delegate_places
from quatrain.targets import triggers
from quatrain.targets.catalogue import Defect, GpuProfile
from quatrain.targets.triggers.occurrence import Occurrence, Occurrences

Trigger = Callable[..., Occurrences]


def _defined() -> Iterator[tuple[str, Trigger]]:
    """The triggers by name: the public functions in the modules of this package that return
    `Occurrences`."""
    for found in pkgutil.iter_modules(triggers.__path__, f"{triggers.__name__}."):
        for name, value in vars(importlib.import_module(found.name)).items():
            own = inspect.isfunction(value) and value.__module__ == found.name
            if own and not name.startswith("_") and _returns_occurrences(value):
                yield name, value


def _returns_occurrences(function: Callable[..., Any]) -> bool:
    return inspect.signature(function).return_annotation is Occurrences


# By their names in defects.toml. A trigger's parameters are what it needs: the `program`, the
# `graph` of a delegate, the `gpu`, and the release of the `runtime` (None: any).
TRIGGERS = dict(_defined())
_PARAMETERS = {name: inspect.signature(trigger).parameters for name, trigger in TRIGGERS.items()}


def cached_trigger(
    program: Program, defect: Defect, runtime: str | None
) -> Callable[[GpuProfile], list[Occurrence]]:
    """What the trigger finds; computed only once if it does not depend on the GPU."""
    found: dict[str, list[Occurrence]] = {}

    def occurrences_on(gpu: GpuProfile) -> list[Occurrence]:
        key = gpu.id if "gpu" in _PARAMETERS[defect.trigger] else ""
        if key not in found:
            found[key] = _occurrences(program, defect, gpu, runtime)
        return found[key]

    return occurrences_on


def _occurrences(
    program: Program, defect: Defect, gpu: GpuProfile, runtime: str | None
) -> list[Occurrence]:
    """The occurrences in all of the program's graphs. Raises `InputError` if an operator's
    arguments do not fit it, such as a product of numbers."""
    trigger, names = TRIGGERS[defect.trigger], _PARAMETERS[defect.trigger]
    asked: dict[str, Any] = {"program": program, "gpu": gpu, "runtime": runtime}
    places = delegate_places(program) if "graph" in names else [("", None)]
    try:
        return [
            replace(each, where=place + each.where)
            for place, graph in places
            for each in trigger(**{name: (asked | {"graph": graph})[name] for name in names})
        ]
    except UNFIT as error:
        raise InputError(
            f"{program.path}: an operator ({', '.join(defect.operators) or 'of any kind'}) has "
            f"arguments that do not fit it, as was seen while looking for {defect.id} "
            f"({type(error).__name__}: {error}); is the program damaged? Export it again"
        ) from error
