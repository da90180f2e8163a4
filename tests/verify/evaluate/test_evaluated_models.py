"""Programs and checkpoints are told apart by what they hold, whatever they are called."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.command_line import invoked
from tests.support.comparisons.logits import step_logits
from tests.support.models.tiny_programs import Tiny
from tests.support.paths import ARTIFACTS

from quatrain.checkpoint.open import is_program
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.verify.eager import load_eager
from quatrain.verify.evaluate.evaluated_models import open_evaluated_model
from quatrain.verify.evaluate.windows import window_logits

TOKENS = [1, 90, 17, 4, 33]


def _logits(model: Path, *options: str) -> np.ndarray:
    out = model.parent / "out.npy"
    words = ["logits", str(model), "--tokens", ",".join(map(str, TOKENS)), "-o", str(out), "--json"]
    said = json.loads(invoked([*words, *options], catch_exceptions=False).stdout)
    found = np.load(out)
    assert said["most_likely_next"] == found.argmax(-1).tolist()
    return found


@pytest.mark.parametrize("name", ["model.pte", "model.pt", "model"])
def test_logits_of_a_program(tiny: Tiny, tmp_path: Path, name: str) -> None:
    program = Path(shutil.copy(tiny.programs["weight-only"], tmp_path / name))
    found = _logits(program, "--device", "reference")
    expected = step_logits(load_eager(tiny.checkpoint, "weight-only"), TOKENS)
    assert found.dtype == np.float32
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4)


def test_logits_of_more_tokens_than_a_call_takes() -> None:
    """ExecuTorch's own exporter states one more than its programs take: 32, not 31."""
    program, tokens = ARTIFACTS / "peer-8da4w-fp32.pte", [1 + i % 60 for i in range(32)]
    opened = open_evaluated_model(program, "reference", None, Scheme.DYNAMIC_INT8, "logits")
    assert opened.window == 31
    found = torch.cat(list(window_logits(opened.load(), tokens, opened.window)))
    assert found.shape == (32, opened.vocab_size)


def test_logits_of_a_checkpoint_of_another_name(tiny: Tiny, tmp_path: Path) -> None:
    shutil.copy(tiny.checkpoint / "params.json", tmp_path)
    file = Path(shutil.copy(tiny.checkpoint / "model.safetensors", tmp_path / "model.weights"))
    expected = step_logits(load_eager(tiny.checkpoint, "weight-only"), TOKENS)
    found = torch.from_numpy(_logits(file, "--scheme", "weight-only"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_is_neither_gets_the_message_of_what_it_may_be(tmp_path: Path) -> None:
    for name, start, message in (
        ("m.gguf", b"GGUF", "run `quatrain quantize"),
        ("m.pte", b"<html>: not found", r"has b'l>: ' at byte 4, expected 'ET12'"),
        ("m", b"not found", "neither a .safetensors"),
    ):
        file = tmp_path / name
        file.write_bytes(start)
        with pytest.raises(InputError, match=message):
            _logits(file)
    assert is_program(Path("nowhere.pte")) and not is_program(Path("hf://owner/name"))


def test_what_only_the_other_takes_is_refused(tiny: Tiny) -> None:
    with pytest.raises(InputError, match=r"--scheme 8da4w is for checkpoints; .*retarget"):
        _logits(tiny.programs["8da4w"], "--scheme", "8da4w")
    with pytest.raises(InputError, match="--device gpu is for programs"):
        _logits(tiny.checkpoint, "--device", "gpu")
    with pytest.raises(InputError, match="--as-on pixel-8: a checkpoint that runs as weight-only"):
        _logits(tiny.checkpoint, "--scheme", "weight-only", "--as-on", "pixel-8")


def test_a_model_without_its_table_is_refused_by_verb(tiny: Tiny, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny.checkpoint, tmp_path / "checkpoint"))
    params = json.loads((folder / "params.json").read_text()) | {"apply_embedding": False}
    (folder / "params.json").write_text(json.dumps(params))
    with pytest.raises(InputError, match=r"no embedding layer .* logits takes"):
        _logits(folder)
