"""What to export for a device and a runtime, from the same data that the doctor uses."""

from dataclasses import asdict, dataclass, field
from typing import Any

from quatrain.devices.catalogue import Device, Hazard, find_device, load_hazards, release
from quatrain.devices.doctor import Finding, examine
from quatrain.devices.triggers import SURE_IMAGE
from quatrain.errors import InputError
from quatrain.program import Program

_DYNAMIC_LINEAR = "et_vk.linear_dq8ca_q4gsw"


@dataclass(frozen=True)
class TargetChoice:
    """How to export for a target, and why.

    `scheme` is '8da4w' or 'weight-only', `activation_dtype` 'fp32' or 'fp16'; `partitioner`
    holds options for ExecuTorch's Vulkan partitioner (texture_limits in texels, buffer_limit
    in bytes); `avoid` names what the export must not contain ('int4-embedding',
    'shared-constants', 'weight-only-int8'); `reasons` are sentences for people.
    """

    device: str
    runtime: str | None
    scheme: str
    activation_dtype: str
    partitioner: dict[str, Any] = field(default_factory=dict)
    avoid: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The choice as plain data, ready for JSON."""
        return asdict(self)


def choose_for_target(device: str, runtime: str | None = None) -> TargetChoice:
    """The scheme, types and limits for `device` (a profile's id) and `runtime` (such as '1.3').

    An unknown runtime may have every defect. Raises `InputError` for an unknown device or a
    malformed version. What it chooses meets no certain finding of the doctor's.
    """
    profile = find_device(device)
    if runtime is not None:
        release(runtime)
    hazards = [
        hazard
        for hazard in load_hazards()
        if hazard.affects_runtime(runtime)
        and hazard.certainty_on(profile) in ("certain", "conditional")
    ]
    reasons: list[str] = []
    scheme = _scheme(profile, hazards, reasons)
    dtype = _activation_dtype(profile, hazards, scheme, reasons)
    return TargetChoice(
        device=profile.id,
        runtime=runtime,
        scheme=scheme,
        activation_dtype=dtype,
        partitioner=_limits(profile, reasons),
        avoid=_avoid(hazards, reasons),
        reasons=reasons,
    )


def _scheme(profile: Device, hazards: list[Hazard], reasons: list[str]) -> str:
    against = [hazard for hazard in hazards if _DYNAMIC_LINEAR in hazard.operators]
    here = [hazard for hazard in against if hazard.families]
    if here:
        reasons += [f"weight-only: {_text(hazard)}" for hazard in here]
        return "weight-only"
    if not profile.int8_dot_product and against:
        reasons += [f"weight-only: {_text(hazard)}" for hazard in against]
        reasons.append(
            f"8da4w would have to make up for that, but no source says that {profile.name} "
            "multiplies int8 in hardware"
        )
        return "weight-only"
    reasons.append(f"8da4w: no defect of its kernel is known to be specific to {profile.name}")
    reasons += [f"note: {_text(hazard)}" for hazard in against]
    return "8da4w"


def _activation_dtype(
    profile: Device, hazards: list[Hazard], scheme: str, reasons: list[str]
) -> str:
    if not profile.fp16:
        known = "has none" if profile.fp16 is False else "no source says that it is supported"
        reasons.append(f"fp32: of float16 arithmetic on {profile.name}, {known}")
        return "fp32"
    against = [hazard for hazard in hazards if hazard.id == "dq8ca-zp-binding-int8"]
    if scheme == "8da4w" and against:
        reasons += [f"fp32: {_text(hazard)}" for hazard in against]
        return "fp32"
    reasons.append(f"fp16: {profile.sources['fp16']}")
    return "fp16"


def _limits(profile: Device, reasons: list[str]) -> dict[str, Any]:
    """Limits that are known; small images where a desktop's are not."""
    limits: dict[str, Any] = {}
    if profile.max_storage_buffer:
        limits["buffer_limit"] = profile.max_storage_buffer
        reasons.append(
            f"buffers up to {profile.max_storage_buffer} bytes: "
            f"{profile.sources['max_storage_buffer']}"
        )
    if profile.max_image_3d:
        limits["texture_limits"] = (profile.max_image_3d,) * 3
        reasons.append(
            f"images up to {profile.max_image_3d} texels: {profile.sources['max_image_3d']}"
        )
    elif "desktop" in profile.families:
        limits["texture_limits"] = (SURE_IMAGE,) * 3
        reasons.append(f"images up to {SURE_IMAGE} texels: ExecuTorch's limit for desktops")
    return limits


def _avoid(hazards: list[Hazard], reasons: list[str]) -> list[str]:
    parts = {
        "embedding-q4-dynamic-oob": "int4-embedding",
        "shared-constant-uaf": "shared-constants",
        "qcs8w-missing-shader": "weight-only-int8",
    }
    named = [hazard for hazard in hazards if hazard.id in parts]
    reasons += [f"no {parts[hazard.id]}: {_text(hazard)}" for hazard in named]
    return [parts[hazard.id] for hazard in named]


def _text(hazard: Hazard) -> str:
    fixed = f", fixed in runtime {hazard.fixed_in}" if hazard.fixed_in else ""
    condition = f" ({hazard.condition})" if hazard.condition else ""
    return f"{hazard.id}: {hazard.title}{condition}{fixed}"


def require_target(program: Program, choice: TargetChoice) -> list[Finding]:
    """Refuse a program that would certainly fail on the chosen target.

    Raises `InputError` naming each certain finding of the doctor's, its places and remedy;
    returns the findings that are only conditional or possible.
    """
    found = examine(program, find_device(choice.device), choice.runtime)
    certain = [finding for finding in found if finding.certainty == "certain"]
    if certain:
        lines = [
            f"{finding.hazard}: {finding.title} ({finding.places[0]}): {finding.consequence}; "
            f"{finding.remedy}"
            for finding in certain
        ]
        where = f"{choice.device}, runtime {choice.runtime or 'unknown'}"
        raise InputError(f"{program.path}: would fail on {where}: " + "; ".join(lines))
    return found
