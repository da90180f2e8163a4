"""Adds a release to an Android module's assets, as described in docs/android.md.

    MODULE/src/main/assets/quatrain/
      NAME-....pte            the programs
      tokenizer.json          the tokenizer
      tokenizer_config.json   its chat template, where it has one
      expected.json           what a right phone answers
      phones.json             which program is for which GPU

    phones.json: {"format": "quatrain-phones-1", "runtime": RELEASE or null, "default": FILE,
                  "gpus": [{"renderer": TEXT, "file": FILE}, ...],
                  "programs": {FILE: {"bytes": N, "sha256": HEX, "backend": NAME}}}

`renderer` is part of what OpenGL ES calls the phone's GPU (GL_RENDERER); what is not in the list
gets `default`, the CPU's program, null where there is none.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quatrain.errors import InputError, remedy_for
from quatrain.json_files import read_object, write_json
from quatrain.release.publish import EXPECTED, link
from quatrain.targets.catalogue import find_gpu
from quatrain.targets.phones import find_phone
from quatrain.tokenizer.files import CONFIG, TOKENIZER

FORMAT, PHONES = "quatrain-phones-1", "phones.json"
ASSETS = Path("src", "main", "assets", "quatrain")
# The part of a GPU's name that the driver says too; "Adreno 740" is "Adreno (TM) 740" there.
_RENDERER = re.compile(
    r"(?:Mali|Immortalis)-G\d+|Adreno \d+L?\b(?! series)|Xclipse \d+|[BCD]XT?P?M?-\d+-\d+"
)


def check_module(module: Path) -> None:
    """Refuse, with `InputError`, a folder in which other assets would be replaced."""
    assets = module / ASSETS
    if not module.is_dir():
        raise InputError(f"--android {module}: no such folder; name the app's module")
    names = sorted(file.name for file in assets.iterdir()) if assets.is_dir() else []
    if names and PHONES not in names:
        raise InputError(
            f"--android {module}: {ASSETS} holds other files ({names[0]}); move them elsewhere"
        )
    if names and not isinstance(read_object(assets / PHONES).get("programs"), dict):
        raise InputError(
            f"--android {module}: {ASSETS / PHONES} was not written by a release, which lists its "
            "programs; move the files elsewhere"
        )


def lay_out(release: Path, report: Mapping[str, Any], module: Path) -> Path:
    """Put the files of the `release`, which `report` describes, into the assets of `module`.

    An earlier release there is replaced; phones.json comes last. Returns the folder. Raises
    `InputError` if that cannot be written, or holds something else.
    """
    check_module(module)
    assets = module / ASSETS
    programs = [file["file"] for file in report["files"]]
    try:
        assets.mkdir(parents=True, exist_ok=True)
        earlier = read_object(assets / PHONES)["programs"] if (assets / PHONES).is_file() else {}
        (assets / PHONES).unlink(missing_ok=True)
        for name in [*programs, TOKENIZER, CONFIG, EXPECTED]:
            if (release / name).is_file():
                (assets / name).unlink(missing_ok=True)
                link(release / name, assets / name)
        for name in set(earlier) - set(programs):
            (assets / Path(name).name).unlink(missing_ok=True)
        new = assets / f".{PHONES}.tmp"
        write_json(new, phones_of(report))
        new.replace(assets / PHONES)
    except OSError as error:
        raise InputError(
            f"--android {module}: cannot be written: {error.strerror}; {remedy_for(error)}"
        ) from error
    return assets


def phones_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """The content of phones.json."""
    files = {file["file"]: file for file in report["files"]}
    cpu = next((name for name, file in files.items() if file["backend"] == "xnnpack"), None)
    gpus = {
        renderer: phone["file"]
        for phone in report["phones"]
        if files[phone["file"]]["backend"] == "vulkan"
        for renderer in renderers_of(phone["id"])
    }
    kept = ("bytes", "sha256", "backend")
    return {
        "format": FORMAT,
        "runtime": report["runtime"],
        "default": cpu,
        "gpus": [{"renderer": renderer, "file": file} for renderer, file in gpus.items()],
        "programs": {name: {key: file[key] for key in kept} for name, file in files.items()},
    }


def renderers_of(phone: str) -> list[str]:
    """What drivers call the GPU of the phone, or the GPU, with this id; empty for a family."""
    known = find_phone(phone)
    return _RENDERER.findall(known.gpu if known else find_gpu(phone).name)


def file_for(phones: Mapping[str, Any], renderer: str) -> str | None:
    """The program for the GPU that its driver calls `renderer`, as an app chooses it."""
    found = (one["file"] for one in phones["gpus"] if _is_in_renderer(one["renderer"], renderer))
    return next(found, phones["default"])


def is_gpu_of(phone: str, renderer: str) -> bool:
    """Whether the phone or GPU with the id `phone` has the driver's name `renderer`."""
    return any(_is_in_renderer(part, renderer) for part in renderers_of(phone))


def _is_in_renderer(part: str, renderer: str) -> bool:
    return re.search(rf"{re.escape(part)}\b", renderer.replace("(TM) ", "")) is not None
