"""Loads the profiles of GPUs and the catalogue of defects from their TOML files."""

import re
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

    `kind`: "wrong", "does not load", "slow", or "note" for what one should know. `certainty`:
    'certain' if the trigger decides, 'conditional' if it also depends on `condition`, 'possible' if
    the program does not show it. `of_old_releases`: 'possible' where no release is named, as hardly
    an app has those that it is of. `needs_dot_products`, `lacks_dot_products`: only GPUs with, or
    without, integer dot products run the kernel. `slows`, `phase`, `factor`, `against` and
    `measured_on` describe slow defects: how slow, and in which schemes.
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
    kind: str = "wrong"
    since: str | None = None
    fixed_in: str | None = None
    certainty: str = "certain"
    of_old_releases: bool = False
    needs_dot_products: bool = False
    lacks_dot_products: bool = False
    slows: tuple[str, ...] = ()
    phase: str | None = None
    factor: float | None = None
    against: str | None = None
    measured_on: str | None = None
    condition: str | None = None

    def affects_runtime(self, runtime: str | None) -> bool:
        """Whether a runtime of this release line has the defect; an unknown one may."""
        if runtime is None:
            return True
        line = release(runtime)
        if self.since is not None and line < release(self.since):
            return False
        return self.fixed_in is None or line < release(self.fixed_in)

    def certainty_on(self, gpu: GpuProfile) -> str | None:
        """How sure the defect is on `gpu`, given that its trigger fires; None: not there."""
        if self.needs_dot_products and gpu.int8_dot_product is False:
            return None
        if self.lacks_dot_products and gpu.int8_dot_product is not False:
            return None
        if set(self.families) & set(gpu.families):
            return self.certainty
        if set(self.suspected) & set(gpu.families):
            return "possible"
        return None if self.families or self.suspected else self.certainty


def release(version: str) -> tuple[int, int]:
    """The release line of a version: '1.3.1' -> (1, 3), '1.4rc1' -> (1, 4).

    Raises `InputError` for anything else.
    """
    line = re.match(r"(\d+)\.(\d+)(?![^.+a-z_-])", version, re.IGNORECASE | re.ASCII)
    if line is None:
        raise InputError(f"{version!r} is no ExecuTorch version; expected one such as 1.3")
    return int(line[1]), int(line[2])


@cache
def load_toml(name: str) -> dict[str, Any]:
    """A data file of this package; not to be changed."""
    return tomllib.loads(files("quatrain.targets").joinpath(name).read_text(encoding="utf-8"))


def as_fields(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of a data file, its lists as tuples."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in entry.items()}


@cache
def load_gpus() -> tuple[GpuProfile, ...]:
    """Every profile of a GPU, in the file's order."""
    return tuple(GpuProfile(**as_fields(entry)) for entry in load_toml("gpus.toml")["gpu"])


@cache
def load_defects() -> tuple[Defect, ...]:
    """Every defect, in the file's order."""
    return tuple(Defect(**as_fields(entry)) for entry in load_toml("defects.toml")["defect"])


def find_gpu(name: str) -> GpuProfile:
    """The profile with this id; `InputError` listing the ids there are."""
    for gpu in load_gpus():
        if gpu.id == name.lower():
            return gpu
    known = ", ".join(gpu.id for gpu in load_gpus())
    raise InputError(f"no profile of a device {name!r}; known are {known}")
