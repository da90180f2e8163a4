"""Chooses how to export for a GPU and a runtime, from the same data as the doctor."""

from dataclasses import asdict, dataclass, field
from typing import Any

from quatrain.arithmetic import ActivationDtype
from quatrain.int4 import Scheme
from quatrain.program.vulkan.linear_kernels import WRONG_GROUP_SUMS, group_sums_are_right
from quatrain.targets.catalogue import Defect, GpuProfile
from quatrain.targets.phones import find_device
from quatrain.targets.planned_program import (
    PlannedProgram,
    defect_text,
    defects_on,
    met_in_8da4w,
    way_to_8da4w,
)
from quatrain.targets.runtimes import needs_older_forms, require_loadable
from quatrain.targets.speed import SpeedFact, slower_scheme, speed_facts
from quatrain.targets.triggers.limits import partitioner_limits


@dataclass(frozen=True)
class TargetChoice:
    """How to export for a target, and why.

    `activation_dtype` is 'fp32' or 'fp16'; `partitioner` holds options for ExecuTorch's Vulkan
    partitioner (texture_limits in texels, buffer_limit in bytes); `evidence` are the known
    measurements of speed there; `reasons` are sentences for people, of which `decided` is the one
    for `scheme`.
    """

    gpu: str
    runtime: str | None
    scheme: Scheme
    activation_dtype: ActivationDtype
    partitioner: dict[str, Any] = field(default_factory=dict)
    evidence: list[SpeedFact] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    decided: str = ""

    @property
    def name(self) -> str:
        """The GPU and the runtime, for people."""
        return _name(self.gpu, self.runtime)

    def as_dict(self) -> dict[str, Any]:
        """The choice as plain data, ready for JSON, where the GPU is the "device"."""
        fields = asdict(self)
        return {"device": fields.pop("gpu"), **fields}


class _Reasons(list[str]):
    """Sentences for people, and the one that decided on the scheme."""

    decided = ""

    def decide(self, reason: str) -> None:
        self.append(reason)
        self.decided = reason


def choose_for_target(
    gpu: str, runtime: str | None = None, planned: PlannedProgram | None = None
) -> TargetChoice:
    """The scheme, types and limits for `gpu` (the id of a GPU or a phone) and `runtime` ('1.3').

    8da4w, unless the doctor would find that a defect of its kernel applies to the `planned`
    program, or else it is measured there to be slower than weight-only. An unknown runtime may
    have every defect. Raises `InputError` for an unknown GPU, and for a release that is unknown
    or cannot run what we write.
    """
    planned = planned or PlannedProgram()
    profile, phone = find_device(gpu)
    if runtime is not None:
        require_loadable(runtime)
    defects = defects_on(profile, runtime)
    reasons = _Reasons([str(phone)] if phone else [])
    dtypes = _activation_dtypes(profile, planned, reasons)
    if needs_older_forms(runtime):
        dtypes = _in_older_forms(runtime, dtypes, planned, reasons)
    facts = speed_facts(profile, runtime)
    scheme, dtype = _scheme(_name(profile.id, runtime), defects, dtypes, planned, reasons)
    scheme, dtype = _faster_alternative(scheme, dtype, facts, dtypes, planned, reasons)
    if dtype == "fp16" and not planned.activation_dtype:
        reasons.append(f"fp16: {profile.sources['fp16']}")
    return TargetChoice(
        gpu=profile.id,
        runtime=runtime,
        scheme=scheme,
        activation_dtype=dtype,
        partitioner=partitioner_limits(profile, reasons),
        evidence=facts,
        reasons=reasons,
        decided=reasons.decided,
    )


def _in_older_forms(
    runtime: str | None, dtypes: list[ActivationDtype], planned: PlannedProgram, reasons: list[str]
) -> list[ActivationDtype]:
    """`dtypes` without float16, in which RMS norm in parts overflows, unless it was asked for."""
    reasons.append(
        f"runtime {runtime} does not register RMS norm, rotary embedding in Hugging Face's layout "
        "and int4 embeddings, which are written in older operators: an int4 embedding in floating "
        "point" + ("" if planned.activation_dtype else ", and all in fp32")
    )
    return dtypes if planned.activation_dtype else ["fp32"]


def _faster_alternative(
    scheme: Scheme,
    dtype: ActivationDtype,
    facts: list[SpeedFact],
    dtypes: list[ActivationDtype],
    planned: PlannedProgram,
    reasons: _Reasons,
) -> tuple[Scheme, ActivationDtype]:
    """Weight-only in place of an 8da4w that is right, where that is measured to be the slower."""
    slower = slower_scheme(facts)
    if scheme == Scheme.DYNAMIC_INT8 and planned.scheme is None:
        if slower and slower[0] == scheme:
            reasons.decide(f"weight-only all the same: {slower[1].defect}: {slower[1].consequence}")
            scheme, dtype = Scheme.WEIGHT_ONLY, dtypes[0]
        elif slower:
            reasons.append(
                f"8da4w is also the faster one: {slower[1].defect}: {slower[1].consequence}"
            )
        else:
            reasons.append("speed: neither scheme is measured to be the slower on this GPU")
    reasons += [f"known of its speed: {fact}" for fact in facts]
    return scheme, dtype


def _activation_dtypes(
    profile: GpuProfile, planned: PlannedProgram, reasons: list[str]
) -> list[ActivationDtype]:
    """What the GPU computes in, the best first."""
    if planned.activation_dtype:
        reasons.append(f"{planned.activation_dtype}: as asked for")
        return [planned.activation_dtype]
    if not profile.fp16:
        known = "has none" if profile.fp16 is False else "no source says that it is supported"
        reasons.append(f"fp32: of float16 arithmetic on {profile.name}, {known}")
        return ["fp32"]
    return ["fp16", "fp32"]


def _scheme(
    where: str,
    defects: list[Defect],
    dtypes: list[ActivationDtype],
    planned: PlannedProgram,
    reasons: _Reasons,
) -> tuple[Scheme, ActivationDtype]:
    """The scheme and one of `dtypes`: 8da4w in the first in which it meets none of `defects`."""
    if planned.scheme == Scheme.WEIGHT_ONLY:
        reasons.decide("weight-only: as asked for")
        return Scheme.WEIGHT_ONLY, dtypes[0]
    if planned.scheme == Scheme.DYNAMIC_INT8:
        reasons.decide("8da4w: as asked for")
        return _asked_8da4w(defects, dtypes, planned)
    if planned.group_size and not group_sums_are_right(planned.group_size):
        reasons.decide(f"weight-only: groups of {planned.group_size}: {WRONG_GROUP_SUMS}")
        return Scheme.WEIGHT_ONLY, dtypes[0]
    against: dict[ActivationDtype, list[Defect]] = {
        dtype: met_in_8da4w(defects, dtype, planned) for dtype in dtypes
    }
    for dtype in dtypes:
        if not against[dtype]:
            reasons += [f"fp32: in fp16, {defect_text(defect)}" for defect in against[dtypes[0]]]
            reasons.decide(f"8da4w: in {dtype} no known defect of its kernel applies on {where}")
            return Scheme.DYNAMIC_INT8, dtype
    for defect in against[dtypes[0]]:
        reasons.decide(f"weight-only: {defect_text(defect)}")
    ways = [way for dtype, met in against.items() if (way := way_to_8da4w(met, dtype, planned))]
    reasons += [f"8da4w would do {way}" for way in ways[:1]]
    return Scheme.WEIGHT_ONLY, dtypes[0]


def _asked_8da4w(
    defects: list[Defect], dtypes: list[ActivationDtype], planned: PlannedProgram
) -> tuple[Scheme, ActivationDtype]:
    """8da4w in the first type in which nothing is against it, else in the best: it is examined."""
    right: list[ActivationDtype] = [
        dtype for dtype in dtypes if not met_in_8da4w(defects, dtype, planned)
    ]
    return Scheme.DYNAMIC_INT8, (right or dtypes)[0]


def _name(gpu: str, runtime: str | None) -> str:
    return f"{gpu}, runtime {runtime or 'unknown'}"
