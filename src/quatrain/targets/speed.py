"""Known facts about the speed of both activation schemes on a GPU, from `defects.toml`."""

from dataclasses import dataclass

from quatrain.int4 import Scheme
from quatrain.targets.catalogue import GpuProfile, load_defects

_PHASES = ("decode", "prefill")  # the one that users wait for longest first


@dataclass(frozen=True)
class SpeedFact:
    """That `schemes` are slow in `phase` ("prefill" or "decode"): at `factor` of `against`.

    `against`: "weight-only", "8da4w", "xnnpack", or None: of what they could be. `measured`:
    whether on a GPU of this family, else it is inferred from one of another, `measured_on`.
    """

    defect: str
    schemes: tuple[str, ...]
    phase: str
    factor: float
    against: str | None
    measured: bool
    measured_on: str
    consequence: str
    source: str

    def __str__(self) -> str:
        """The fact and its evidence, for people."""
        where = f"measured on {self.measured_on}"
        if not self.measured:
            where += ", not on this GPU, and not counted"
        schemes = " and ".join(self.schemes)
        return f"{self.defect}: {schemes} {self.phase}: {self.consequence} ({where}: {self.source})"


def speed_facts(gpu: GpuProfile, runtime: str | None) -> list[SpeedFact]:
    """All that is known of `gpu` with a release of the runtime (None: any), measured or not."""
    return [
        SpeedFact(
            defect=defect.id,
            schemes=defect.slows,
            phase=defect.phase,
            factor=defect.factor,
            against=defect.against,
            measured=certainty != "possible",
            measured_on=defect.measured_on,
            consequence=defect.consequence,
            source=defect.source,
        )
        for defect in load_defects()
        if defect.phase and defect.factor and defect.measured_on
        and defect.affects_runtime(runtime)
        and (certainty := defect.certainty_on(gpu))
    ]  # fmt: skip


def slower_scheme(facts: list[SpeedFact]) -> tuple[Scheme, SpeedFact] | None:
    """The scheme that is measured to be the slower of the two, by decode before prefill, and the
    fact that says so; None if neither is, or both are slow alike."""
    for phase in _PHASES:
        slow = {
            scheme: fact
            for fact in facts
            if fact.measured and fact.phase == phase and fact.against != "xnnpack"
            for scheme in fact.schemes
        }
        if len(slow) == 1:
            ((scheme, fact),) = slow.items()
            return Scheme(scheme), fact
    return None
