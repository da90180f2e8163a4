"""Refuses a planned or finished program that would fail on a target."""

from collections.abc import Iterable
from pathlib import Path

from quatrain.arithmetic import ActivationDtype
from quatrain.errors import InputError
from quatrain.program import Program
from quatrain.targets.catalogue import Defect, find_gpu
from quatrain.targets.choice import TargetChoice
from quatrain.targets.doctor import examine
from quatrain.targets.planned_program import (
    PlannedProgram,
    defect_text,
    defects_on,
    met_in_8da4w,
)


def met_by_8da4w(choice: TargetChoice, dtype: ActivationDtype, planned: PlannedProgram) -> str:
    """The defects of the target that an 8da4w program as `planned`, in `dtype`, would meet, for
    people; nothing where there are none."""
    return _told(met_in_8da4w(_defects(choice), dtype, planned))


def met_in_uneven_calls(choice: TargetChoice) -> str:
    """The defects of the target that attention meets whose longest call is not a multiple of 4
    tokens, for people; nothing where there are none."""
    trigger = "attention_of_uneven_calls"
    return _told(defect for defect in _defects(choice) if defect.trigger == trigger)


def _defects(choice: TargetChoice) -> list[Defect]:
    return defects_on(find_gpu(choice.gpu), choice.runtime)


def _told(met: Iterable[Defect]) -> str:
    return "; ".join(f"{defect_text(defect)}: {defect.consequence}" for defect in met)


def require_target(program: Program, choice: TargetChoice, output: Path) -> None:
    """Refuse a program, to be called `output`, to which the doctor finds that a defect applies.

    Raises `InputError` naming each such finding, its first occurrence and its remedy.
    """
    found = examine(program, [find_gpu(choice.gpu)], choice.runtime, output)
    lines = [str(finding) for finding in found if finding.applies]
    if lines:
        raise InputError(f"{output}: would fail on {choice.name}: {'; '.join(lines)}")
