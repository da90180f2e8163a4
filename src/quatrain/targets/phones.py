"""Phones by name, from `phones.toml`."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache

from quatrain.errors import InputError
from quatrain.targets.catalogue import GpuProfile, find_gpu, load_gpus, load_toml

_MAKERS = ("-exynos", "-snapdragon")  # of phones that are sold with either


@dataclass(frozen=True)
class Phone:
    """A phone; the fields are explained at the head of `phones.toml`."""

    id: str
    name: str
    soc: str
    gpu: str
    source: str
    gpu_id: str | None = None
    driver: str | None = None
    notes: str | None = None

    def __str__(self) -> str:
        """What is known of it, in a line."""
        facts = [f"{self.name}: {self.soc}, {self.gpu}, profile {self.gpu_id}"]
        facts += [f"driver {self.driver}"] if self.driver else []
        facts += [self.notes] if self.notes else []
        return f"{'; '.join(facts)} (source: {self.source})"


@cache
def load_phones() -> tuple[Phone, ...]:
    """Every phone, in the file's order."""
    return tuple(Phone(**entry) for entry in load_toml("phones.toml")["phone"])


def find_phone(name: str) -> Phone | None:
    """The phone with this id; None if there is none."""
    return next((phone for phone in load_phones() if phone.id == name.lower()), None)


def by_chip(name: str) -> list[str]:
    """The ids for `name`: those of both phones of that name if it is sold with two chips, otherwise
    `name` itself."""
    either = [name.lower() + maker for maker in _MAKERS]
    return [id for id in either if find_phone(id)] or [name]


def find_devices(names: Iterable[str]) -> tuple[list[GpuProfile], list[Phone]]:
    """The GPUs of ids of GPUs and phones, each once, and the phones; of a phone that is sold with
    either of two chips both. Raises `InputError` as `find_device`."""
    found = [find_device(each) for name in names for each in by_chip(name)]
    gpus = {gpu.id: gpu for gpu, _ in found}
    phones = {phone.id: phone for _, phone in found if phone is not None}
    return list(gpus.values()), list(phones.values())


def find_device(name: str) -> tuple[GpuProfile, Phone | None]:
    """The GPU's profile of the id of a GPU or of a phone, and the phone.

    Raises `InputError` for an unknown id, for that of two phones by their chips, and for a phone
    whose GPU has no profile.
    """
    either = by_chip(name)
    if len(either) > 1:
        raise InputError(
            f"{name!r} is sold with two chips, which are separate devices here: name "
            f"{' or '.join(either)}"
        )
    phone = find_phone(name)
    if phone is None:
        if any(gpu.id == name.lower() for gpu in load_gpus()):
            return find_gpu(name), None
        raise _unknown(name)
    if phone.gpu_id is None:
        raise InputError(
            f"{phone.name} has a {phone.gpu} ({phone.soc}), which has no profile: use a program "
            "for its CPU (--backend xnnpack), or name one of "
            f"{', '.join(gpu.id for gpu in load_gpus())}"
        )
    return find_gpu(phone.gpu_id), phone


def _unknown(name: str) -> InputError:
    gpus, phones = [gpu.id for gpu in load_gpus()], [phone.id for phone in load_phones()]
    asked = name.lower()
    near = [known for known in gpus + phones if known.startswith(f"{asked}-")]
    near = ", ".join(near or get_close_matches(asked, gpus + phones))
    near = f"; most like it are {near}" if near else ""
    if set(asked.split()) & {*gpus, *phones}:
        near = "; several have commas between"
    return InputError(
        f"no profile of a device {name!r}{near}; "
        f"known are {', '.join(gpus)}, and the phones {', '.join(phones)}"
    )
