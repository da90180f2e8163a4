"""Every command in docs/formats.md and docs/devices.md runs."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
from tests.support.paths import DOCS
from tests.support.programs import artifact
from typer.testing import CliRunner

from quatrain.cli import build_app


@pytest.mark.parametrize("page", ["formats.md", "devices.md"])
def test_commands_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(artifact("peer-8da4w-fp32"), tmp_path / "model.pte")
    shutil.copy(artifact("peer-weight-only-fp32"), tmp_path / "other.pte")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    commands = [line for block in blocks for line in block.splitlines()]
    assert commands
    for command in commands:
        done = CliRunner().invoke(build_app(), shlex.split(command)[1:])
        assert done.exit_code == 0, (command, done.output, done.exception)


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(artifact("peer-8da4w-fp32"), tmp_path / "model.pte")
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "formats.md").read_text(encoding="utf-8")
    example = re.findall(r"```python\n(.*?)```", text, re.S)[0]
    lines = example.replace('names["weight"]', "16").splitlines()
    exec("\n".join(lines), {})
    assert (tmp_path / "copy.pte").exists()
