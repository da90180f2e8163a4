"""Every command in docs/checkpoints.md runs."""

import re
import shlex

import torch
from tests.support import quantized_folders as folders
from tests.support import tiny_models as tiny
from tests.support.paths import DOCS
from typer.testing import CliRunner

from quatrain.cli import build_app

PAGE = DOCS / "checkpoints.md"


def test_commands_run(tmp_path, monkeypatch):
    folders.write_quantized(tmp_path / "llama-gptq", "gptq")
    zeros = {"layers.0.attention.wq": torch.ones(64, 2)}
    folders.write_quantized(tmp_path / "llama-awq", "awq", zeros=zeros)
    folders.write_torchao(tmp_path / "llama-torchao")
    tiny.write_gguf(tmp_path / "model.gguf", kind="Q4_0")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```sh\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    for command in block.splitlines():
        done = CliRunner().invoke(build_app(), shlex.split(command)[1:])
        assert done.exit_code == 0, (command, done.output, done.exception)
