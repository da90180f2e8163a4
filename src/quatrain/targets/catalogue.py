"""Loads the device profiles and the hazard catalogue from their TOML files."""

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from quatrain.errors import InputError


@dataclass(frozen=True)
class Device:
    """A GPU, or a family of them; None is a figure that no source gives.

    `max_storage_buffer` is in bytes, `max_image_2d` and `max_image_3d` in texels; `sources`
    says where each figure comes from.
    """

    id: str
    name: str
    families: tuple[str, ...]
    vulkan: str | None = None
    fp16: bool | None = None
    storage_16bit: bool | None = None
    int8_dot_product: bool | None = None
    subgroup_size: int | None = None
    max_storage_buffer: int | None = None
    max_image_2d: int | None = None
    max_image_3d: int | None = None
    sources: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Defect:
    """A known defect; the fields are explained at the head of `defects.toml`.

    `certainty`: 'certain' where the trigger decides, 'conditional' where it also depends on
    what `condition` says, 'possible' where the program cannot tell.
    """

    id: str
    title: str
    operators: tuple[str, ...]
    trigger: str
    families: tuple[str, ...]
    suspected: tuple[str, ...]
    consequence: str
    remedy: str
    source: str
    fixed_in: str | None = None
    certainty: str = "certain"
    condition: str | None = None

    def affects_runtime(self, runtime: str | None) -> bool:
        """Whether a runtime of this release line has the defect; an unknown one may."""
        if runtime is None or self.fixed_in is None:
            return True
        return release(runtime) < release(self.fixed_in)

    def certainty_on(self, device: Device) -> str | None:
        """How sure the defect is on `device`, given that its trigger fires; None: not there."""
        if not self.families or set(self.families) & set(device.families):
            return self.certainty
        return "possible" if set(self.suspected) & set(device.families) else None


def release(version: str) -> tuple[int, int]:
    """The release line of a version: '1.3.1' -> (1, 3). `InputError` for anything else."""
    parts = version.split(".")
    if len(parts) < 2 or not all(part.isdecimal() for part in parts[:2]):
        raise InputError(f"{version!r} is no ExecuTorch version; expected one such as 1.3")
    return int(parts[0]), int(parts[1])


def _load(name: str) -> dict[str, Any]:
    return tomllib.loads(files("quatrain.targets").joinpath(name).read_text(encoding="utf-8"))


def _tuples(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()}


@cache
def load_devices() -> tuple[Device, ...]:
    """Every device profile, in the file's order."""
    return tuple(Device(**_tuples(entry)) for entry in _load("devices.toml")["device"])


@cache
def load_defects() -> tuple[Defect, ...]:
    """Every hazard, in the file's order."""
    return tuple(Defect(**_tuples(entry)) for entry in _load("defects.toml")["hazard"])


def find_device(name: str) -> Device:
    """The profile with this id; `InputError` listing the ids there are."""
    for device in load_devices():
        if device.id == name.lower():
            return device
    known = ", ".join(device.id for device in load_devices())
    raise InputError(f"no profile of a device {name!r}; known are {known}")
