"""Which known defects a program meets, on which devices, and what to do about each."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quatrain.errors import InputError
from quatrain.program import Program
from quatrain.targets.catalogue import Defect, Device, load_defects, load_devices
from quatrain.targets.triggers import DEVICE_TRIGGERS, TRIGGERS, Occurrence

_ORDER = ("certain", "conditional", "possible")


@dataclass(frozen=True)
class Finding:
    """One hazard that the program meets.

    `certainty`: 'certain' (it will happen), 'conditional' (it depends on `condition`), or
    'possible' (the program or the profile cannot tell). `devices` are ids of profiles, empty
    for every GPU; `places` say where in the program.
    """

    hazard: str
    title: str
    certainty: str
    condition: str | None
    places: list[str]
    devices: list[str]
    fixed_in: str | None
    consequence: str
    remedy: str
    source: str

    @property
    def applies(self) -> bool:
        """Whether it counts as a failed check: a mere possibility does not."""
        return self.certainty != "possible"

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain data, ready for JSON."""
        return asdict(self) | {"applies": self.applies}


def examine(
    program: Program,
    device: Device | None = None,
    runtime: str | None = None,
    name: Path | None = None,
) -> list[Finding]:
    """The hazards that `program` meets, the surest first.

    Without `device`, on any profiled device; without `runtime` (a release such as '1.3'), in
    any. Remedies call the program by its path, or by `name`. Raises `InputError` where the
    program has no Vulkan delegate, to which alone the catalogue applies.
    """
    graphs = [delegate.graph for delegate in program.delegates if delegate.graph]
    if not graphs:
        backends = sorted({delegate.backend for delegate in program.delegates}) or ["none"]
        raise InputError(
            f"{program.path}: has no Vulkan delegate (its backends: {', '.join(backends)}); "
            "the catalogue of defects is that of the Vulkan runtime"
        )
    devices = [device] if device else list(load_devices())
    found: list[Finding] = []
    for hazard in load_defects():
        if hazard.affects_runtime(runtime):
            found += _examine_defect(program, hazard, devices, name or program.path)
    return sorted(found, key=lambda finding: _ORDER.index(finding.certainty))


def _examine_defect(
    program: Program, hazard: Defect, devices: list[Device], name: Path
) -> list[Finding]:
    """At most one finding per certainty, over all devices that have it."""
    fired: dict[str, list[Occurrence]] = {}

    def fire(device: Device) -> list[Occurrence]:
        """The trigger's places, looked for once where they do not depend on the device."""
        key = device.id if hazard.trigger in DEVICE_TRIGGERS else ""
        if key not in fired:
            graphs = [delegate.graph for delegate in program.delegates if delegate.graph]
            trigger = TRIGGERS[hazard.trigger]
            fired[key] = [
                occurrence for graph in graphs for occurrence in trigger(program, graph, device)
            ]
        return fired[key]

    places: dict[str, dict[str, None]] = {}
    affected: dict[str, list[str]] = {}
    remedies: dict[str, dict[str, None]] = {}
    for device, certainty in _devices_with(hazard, devices):
        for occurrence in fire(device):
            level = _weaker(certainty, occurrence)
            places.setdefault(level, {})[occurrence.where] = None
            remedy = (occurrence.remedy or hazard.remedy).format(model=name)
            remedies.setdefault(level, {})[remedy] = None
            if device.id not in affected.setdefault(level, []):
                affected[level].append(device.id)
    everywhere = len(devices) == len(load_devices())
    return [
        Finding(
            hazard=hazard.id,
            title=hazard.title,
            certainty=level,
            condition=hazard.condition,
            places=list(where),
            devices=[] if everywhere and len(affected[level]) == len(devices) else affected[level],
            fixed_in=hazard.fixed_in,
            consequence=hazard.consequence,
            remedy="; ".join(remedies[level]),
            source=hazard.source,
        )
        for level, where in places.items()
    ]


def _devices_with(hazard: Defect, devices: list[Device]) -> list[tuple[Device, str]]:
    pairs = [(device, hazard.certainty_on(device)) for device in devices]
    return [(device, certainty) for device, certainty in pairs if certainty is not None]


def _weaker(certainty: str, occurrence: Occurrence) -> str:
    """The less sure of a hazard's certainty and a place's own."""
    return max((certainty, occurrence.certainty or certainty), key=_ORDER.index)
