"""Releases of a folder with a `model` and a release.toml, made and compared."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from quatrain.release.release import Release, make_release
from quatrain.release.spec import ReleaseSpec, merged_specs


def merged_spec(file: Path | None, given: dict[str, Any]) -> ReleaseSpec:
    """What `file` says, and in its place what is `given`."""
    (found,) = merged_specs(file, given)
    return found


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def release_again(folder: Path, **given) -> Release:
    spec = merged_spec(folder / "release.toml", given)
    return make_release(folder / "model", folder / "out", spec)


def report_of(folder: Path) -> dict:
    return json.loads((folder / "out" / "report.json").read_text())


def copied(folder: Path, to: Path) -> Path:
    """`folder` under another path, its files being the same: what is made is found there."""
    return Path(shutil.copytree(folder, to / "copy"))


def assert_same_files(found: Path, expected: Path) -> None:
    for file in expected.iterdir():
        if file.is_file():
            assert (found / file.name).read_bytes() == file.read_bytes(), file.name
