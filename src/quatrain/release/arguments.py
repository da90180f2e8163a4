"""Checks arguments before anything is downloaded or opened, without importing torch."""

from pathlib import Path

from quatrain.atomic_files import is_device_or_pipe, require_name
from quatrain.checkpoint.files.hub import readable
from quatrain.checkpoint.open import detect
from quatrain.errors import InputError
from quatrain.json_files import read_object
from quatrain.release.manifest import FORMAT as RELEASE
from quatrain.release.manifest import SEVERAL
from quatrain.release.spec import ReleaseSpec
from quatrain.release.tasks.store import MANIFEST, WORK
from quatrain.targets.phones import by_chip, find_device, find_phone
from quatrain.text_files import read_text
from quatrain.tokenizer.files import require_tokenizer


def check_arguments(model: Path | str | None, output: Path, spec: ReleaseSpec) -> None:
    """Raise `InputError` if `model` is nothing that is read, `output` cannot be a release's folder,
    a phone or file that `spec` names is unknown or cannot be read, or what it says counts for
    nothing; `model` is None if it is to be fetched.
    """
    if model is not None:
        detect(model)
    require_own_folder(output, None if model is None else readable(Path(model)))
    if spec.scheme is not None and not spec.phones:
        raise InputError(
            f"scheme = {str(spec.scheme)!r} is for GPU programs, but no phone is named; name some "
            "(--phones), or leave it out: the CPU's program is 8da4w"
        )
    for key, is_for in (("cpu = false", not spec.cpu), ("no-defects", spec.no_defects)):
        if is_for and not spec.phones:
            raise InputError(
                f"{key} has no effect if no phone is named: then only a CPU program is made, and "
                "it is not checked for defects of phones; name some (--phones), or leave it out"
            )
    if spec.tokenizer is not None:
        require_tokenizer(spec.tokenizer)
    for phone in spec.phones:
        _check_phone(phone)
    if spec.text is not None:
        _check_text(spec.text)


def _check_phone(asked: str) -> None:
    """Refuse a name that is neither a phone nor a GPU; a phone may have an unknown GPU."""
    for name in by_chip(asked):
        if find_phone(name) is None:
            find_device(name)


def _check_text(text: Path | str) -> None:
    if is_device_or_pipe(Path(text)):
        raise InputError(
            f"--text {text}: is a pipe or a device, but a release reads its text several times, "
            "and keeps it; give a file"
        )
    read_text(text, "--text")


def check_workers(jobs: int | None, ray: str | None) -> None:
    """Raise `InputError` if both are given, since one would have no effect, or if `jobs` is not a
    number of programs."""
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs is {jobs}, expected 1 or more")
    if jobs is not None and ray is not None:
        raise InputError(
            f"--jobs {jobs} applies to this machine, but with --ray {ray} the cluster runs as "
            "many tasks as it has room for; leave one of them out"
        )


def require_own_folder(folder: Path, source: Path | None, kind: str = RELEASE) -> None:
    """Refuse, with `InputError`, a folder that holds something else than a release; `kind` is the
    format of its manifest.json."""
    require_name(folder, f"-o {folder}")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"-o {folder}: is a file, expected a folder to write into")
    if source is not None and folder.resolve() in (source.resolve(), *source.resolve().parents):
        raise InputError(f"-o {folder}: holds the source model; name a new folder for the release")
    names = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    if names and not {MANIFEST, WORK} & set(names):
        raise InputError(
            f"-o {folder}: holds other files ({names[0]}); name a new folder for the release"
        )
    if MANIFEST in names:
        _require_kind(folder, kind)


def _require_kind(folder: Path, kind: str) -> None:
    said = read_object(folder / MANIFEST)
    if (found := said.get("format")) != kind:
        held = {RELEASE: "one release", SEVERAL: "several releases"}
        what = held.get(str(found), f"another {MANIFEST}")
        raise InputError(f"-o {folder}: holds {what}; name a new folder for this release")
    parts = "files" if kind == RELEASE else "cells"
    if not isinstance(said.get(parts), dict):
        raise InputError(
            f"-o {folder}: its {MANIFEST} is damaged: {parts!r} is not an object; name a new "
            "folder for the release"
        )
