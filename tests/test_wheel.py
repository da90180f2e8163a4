"""A wheel built from the tree holds all of the package, and runs outside of the tree."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from tests.support.paths import ROOT
from tests.support.programs import artifact

PACKAGE = ROOT / "src" / "quatrain"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: a build leaves its own files in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, tree)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment that has nothing of Quatrain's but the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    _pip("install", "--no-deps", "--target", folder, wheel)
    return folder


def _pip(*arguments: object) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_it_holds_every_file_of_the_package(wheel: Path) -> None:
    in_tree = {
        str(path.relative_to(PACKAGE.parent))
        for path in PACKAGE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if name.startswith("quatrain/")}
    assert in_wheel == in_tree


@pytest.mark.parametrize(
    "arguments",
    [
        ("--version",),
        ("devices", "--json"),
        ("inspect", str(artifact("peer-8da4w-fp32")), "--html", "page.html"),
        ("doctor", str(artifact("peer-8da4w-fp32")), "--device", "mali-g715", "--runtime", "1.5"),
        ("logits", str(artifact("peer-8da4w-fp32")), "--tokens", "1,2", "-o", "out.npy"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_it_runs_outside_of_the_tree(
    arguments: tuple[str, ...], installed: Path, tmp_path: Path
) -> None:
    where = "import quatrain.cli; print(quatrain.cli.__file__)"
    shown = _python(installed, tmp_path, "-c", where)
    assert shown.startswith(str(installed))
    _python(installed, tmp_path, "-m", "quatrain", *arguments)


def _python(installed: Path, folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(installed)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_installs_both_commands(installed: Path) -> None:
    assert {"quatrain", "export_llm_backbone"} <= {
        file.name for file in (installed / "bin").iterdir()
    }
