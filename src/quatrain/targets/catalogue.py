"""Loads the profiles of GPUs and the catalogue of defects from their TOML files."""

import tomllib
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from quatrain.errors import InputError


@dataclass(frozen=True)
class GpuProfile:
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

    def certainty_on(self, gpu: GpuProfile) -> str | None:
        """How sure the defect is on `gpu`, given that its trigger fires; None: not there."""
        if not self.families or set(self.families) & set(gpu.families):
            return self.certainty
        return "possible" if set(self.suspected) & set(gpu.families) else None


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
def load_gpus() -> tuple[GpuProfile, ...]:
    """Every profile of a GPU, in the file's order."""
    return tuple(GpuProfile(**_tuples(entry)) for entry in _load("gpus.toml")["gpu"])


@cache
def load_defects() -> tuple[Defect, ...]:
    """Every defect, in the file's order."""
    return tuple(Defect(**_tuples(entry)) for entry in _load("defects.toml")["defect"])


def find_gpu(name: str) -> GpuProfile:
    """The profile with this id; `InputError` listing the ids there are."""
    for gpu in load_gpus():
        if gpu.id == name.lower():
            return gpu
    known = ", ".join(gpu.id for gpu in load_gpus())
    raise InputError(f"no profile of a device {name!r}; known are {known}")
