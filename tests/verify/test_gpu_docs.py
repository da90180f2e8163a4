"""Every `quatrain` command in docs/gpu.md runs, on a tiny program."""

import re
import shlex
from pathlib import Path

import pytest
from tests.support.paths import DOCS
from tests.verify.conftest import Tiny
from typer.testing import CliRunner

from quatrain.cli import build_app
from quatrain.errors import CheckFailed
from quatrain.runtime.wgpu.adapters import list_adapters

PAGE = DOCS / "gpu.md"
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("quatrain")]


@pytest.mark.skipif(not list_adapters(), reason="no Vulkan adapter (mesa-vulkan-drivers gives one)")
@pytest.mark.parametrize("command", COMMANDS)
def test_command_runs(
    command: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {"model.pte": str(tiny.programs["8da4w"]), "CHECKPOINT": str(tiny.checkpoint)}
    words = [places.get(word, word) for word in shlex.split(command)[1:]]
    if words[0] == "selftest":
        words += ["--kernel", "permute"]  # all of them run in tests/kernels
    if words[0] == "run":
        words += ["--max-new-tokens", "9"]
    if "--heat-map" in words:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(build_app(), words, catch_exceptions=True)
    assert result.exit_code == 0, (result.output, result.exception)


def test_verify_exits_with_one_on_a_defect(tiny: Tiny) -> None:
    words = ["verify", str(tiny.programs["8da4w"]), str(tiny.checkpoint), "--device", "reference",
             "--new-tokens", "3", "--emulate", "dq8ca-zp-binding-int8"]  # fmt: skip
    with pytest.raises(CheckFailed, match="does not compute"):
        CliRunner().invoke(build_app(), words, catch_exceptions=False)
    assert CheckFailed.exit_code == 1
