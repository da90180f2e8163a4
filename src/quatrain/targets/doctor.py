"""Which known defects a program meets, on which GPUs, and what to do about each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from quatrain.errors import InputError
from quatrain.program import Program, open_program
from quatrain.program.external_constants import external_constants
from quatrain.short_lists import and_more
from quatrain.targets.catalogue import (
    Defect,
    GpuProfile,
    load_defects,
    load_gpus,
)
from quatrain.targets.cpu import CpuExamination, examine_for_cpu
from quatrain.targets.phones import Phone, find_devices
from quatrain.targets.remedy import OF_EXPORT, OptionName, remedy_text
from quatrain.targets.runtimes import newest_release, require_release
from quatrain.targets.triggers.occurrence import Occurrence
from quatrain.targets.triggers.registry import cached_trigger

_ORDER = ("certain", "conditional", "possible")
FAILURES = ("wrong", "does not load")


@dataclass(frozen=True)
class Finding:
    """One defect that the program meets.

    `kind`: "wrong", "does not load", "slow" or "note". `certainty`: 'certain' (it will happen),
    'conditional' (it depends on `condition`), or 'possible' (the program or the profile cannot
    tell). `gpus` are ids of profiles, empty for every GPU; `occurrences` say where in the program.
    """

    defect: str
    title: str
    kind: str
    certainty: str
    condition: str | None
    occurrences: list[str]
    gpus: list[str]
    since: str | None
    fixed_in: str | None
    consequence: str
    remedy: str
    source: str

    @property
    def applies(self) -> bool:
        """Whether it counts as a failed check: what is only possible or slow does not."""
        return self.certainty != "possible" and self.kind in FAILURES

    def __str__(self) -> str:
        """One line: what happens, where first, and the remedy."""
        where = and_more(self.occurrences)
        return (
            f"{self.defect}, {self.kind}: {self.title} ({where}): {self.consequence}; {self.remedy}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain data, ready for JSON."""
        return asdict(self) | {"applies": self.applies}


@dataclass(frozen=True)
class Examination:
    """What the doctor found in `program`, for GPUs (profiles' ids, none for any), the
    phones among what was asked, and a release of the runtime, None for any. `cpu`: what is known of
    a program that is the CPU's. `external`: constants in a `.ptd` file, whose values were not
    seen."""

    program: Path
    gpus: list[str]
    runtime: str | None
    findings: list[Finding]
    phones: list[Phone] = field(default_factory=list)
    cpu: CpuExamination | None = None
    external: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether no known defect applies, and the runtime has what a program for the CPU calls, of
        which no method needs what another wrote."""
        failing = self.cpu is not None and (self.cpu.lacking or self.cpu.wrong)
        return not failing and not any(finding.applies for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The examination as plain data, ready for JSON."""
        return {
            "program": self.program,
            "gpus": self.gpus,
            "phones": [asdict(phone) for phone in self.phones],
            "runtime": self.runtime,
            "passed": self.passed,
            "findings": [finding.as_dict() for finding in self.findings],
            "external_constants": self.external,
        } | ({"cpu": asdict(self.cpu)} if self.cpu else {})


def examine_file(
    model: Path, devices: Sequence[str] = (), runtime: str | None = None
) -> Examination:
    """`examine` the program at `model` for the GPUs and phones of the ids `devices`; none are all.

    A program for the CPU, which meets none of the catalogue's defects, is described. Raises
    `InputError` for an unknown GPU, or any with such a program, an unknown release, and as
    `open_program`.
    """
    gpus, phones = find_devices(devices)
    if runtime is not None:
        require_release(runtime)
    program = open_program(model)
    cpu = examine_for_cpu(program, runtime)
    if cpu and devices:
        raise InputError(
            f"--device {devices[0]} is a GPU, and {model} is a program for the CPU "
            f"({cpu.backend}); leave it out"
        )
    findings = [] if cpu else examine(program, gpus, runtime)
    asked, external = [gpu.id for gpu in gpus], external_constants(program)
    return Examination(model, asked, runtime, findings, phones, cpu, external)


def examine(
    program: Program,
    gpus: Sequence[GpuProfile] | None = None,
    runtime: str | None = None,
    name: Path | None = None,
    options: Mapping[str, OptionName] = OF_EXPORT,
) -> list[Finding]:
    """The defects that `program` meets, the surest first.

    Without `gpus`, on any that has a profile; without `runtime` (a release such as '1.3'), in any.
    Remedies call the program by its path, or by `name`, and options as `options` does. Raises
    `InputError` if the program has no Vulkan delegate, to which alone the catalogue applies.
    """
    if not program.graphs:
        backends = sorted({delegate.backend for delegate in program.delegates}) or ["none"]
        raise InputError(
            f"{program.path}: has no Vulkan delegate (its backends: {', '.join(backends)}); "
            "the catalogue of defects is that of the Vulkan runtime"
        )
    asked = list(gpus or load_gpus())
    found: list[Finding] = []

    def said(remedy: str) -> str:
        return remedy_text(remedy, name or program.path, options)

    for defect in load_defects():
        if defect.affects_runtime(runtime):
            found += _examine_defect(program, defect, asked, runtime, said)
    return sorted(found, key=lambda one: (not one.applies, _ORDER.index(one.certainty)))


def fatal_findings(program: Program) -> list[Finding]:
    """What makes `program` fail on every GPU with the newest runtime; empty without a Vulkan
    delegate.

    A defect of a kernel that needs integer dot products counts, though GPUs without them run
    another.
    """
    if not program.graphs:
        return []
    common = {gpu.id for gpu in load_gpus() if gpu.int8_dot_product is not False}
    return [
        finding
        for finding in examine(program, runtime=newest_release())
        if finding.applies
        and finding.certainty == "certain"
        and (not finding.gpus or common <= set(finding.gpus))
    ]


@dataclass
class _Level:
    """What was found at one certainty: each thing once, in order."""

    occurrences: dict[str, None] = field(default_factory=dict)
    gpus: dict[str, None] = field(default_factory=dict)
    remedies: dict[str, None] = field(default_factory=dict)


def _examine_defect(
    program: Program,
    defect: Defect,
    gpus: list[GpuProfile],
    runtime: str | None,
    said: Callable[[str], str],
) -> list[Finding]:
    """At most one finding per certainty, over all GPUs that have it; its remedy as it is `said`."""
    levels: dict[str, _Level] = {}
    occurrences_on = cached_trigger(program, defect, runtime)
    unsure = defect.of_old_releases and runtime is None
    for gpu, certainty in _gpus_with(defect, gpus):
        for occurrence in occurrences_on(gpu):
            sure = "possible" if unsure else _less_certain(certainty, occurrence)
            level = levels.setdefault(sure, _Level())
            level.occurrences[occurrence.where] = None
            level.gpus[gpu.id] = None
            level.remedies[said(occurrence.remedy or defect.remedy)] = None
    every = len(load_gpus())
    return [
        Finding(
            defect=defect.id,
            title=defect.title,
            kind=defect.kind,
            certainty=certainty,
            condition=defect.condition,
            occurrences=list(level.occurrences),
            gpus=[] if len(level.gpus) == every else list(level.gpus),
            since=defect.since,
            fixed_in=defect.fixed_in,
            consequence=defect.consequence,
            remedy="; ".join(level.remedies),
            source=defect.source,
        )
        for certainty, level in levels.items()
    ]


def _gpus_with(defect: Defect, gpus: list[GpuProfile]) -> list[tuple[GpuProfile, str]]:
    pairs = [(gpu, defect.certainty_on(gpu)) for gpu in gpus]
    return [(gpu, certainty) for gpu, certainty in pairs if certainty is not None]


def _less_certain(certainty: str, occurrence: Occurrence) -> str:
    """The less sure of a defect's certainty and an occurrence's own."""
    return max((certainty, occurrence.certainty or certainty), key=_ORDER.index)
