"""What a file or folder is, told by its content."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.support.formats import gguf_files as ggufs
from tests.support.formats import quantized_folders as folders
from tests.support.models import tiny_models as tiny

from quatrain.checkpoint.check_values import check_tensor_values
from quatrain.checkpoint.files.formats import Form
from quatrain.checkpoint.files.tensor_file import read_tensors
from quatrain.checkpoint.open import (
    detect,
    is_program,
    is_quantized,
    open_checkpoint,
    open_float_model,
)
from quatrain.errors import InputError


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# name: (how it is made, what it is, whether it is quantized)
MADE = {
    "a GGUF file": (lambda at: ggufs.write_gguf(at / "m"), Form.GGUF, False),
    "a Hugging Face folder": (tiny.write_hugging_face, Form.HUGGING_FACE, False),
    "a GPTQ folder": (lambda at: folders.write_quantized(at, "gptq"), Form.HUGGING_FACE, True),
    "torchao's, unsaid": (
        lambda at: folders.write_torchao(at, settings=False)[0], Form.HUGGING_FACE, True,
    ),
    "a Meta folder": (tiny.write_meta, Form.META, False),
    "a checkpoint": (tiny.write_checkpoint, Form.META, True),
    "its tensors": (
        lambda at: tiny.write_checkpoint(at) / "model.safetensors", Form.SAFETENSORS, True,
    ),
    "Meta's tensors": (lambda at: tiny.write_meta(at) / "consolidated.00.pth", Form.PTH, False),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_each_format_is_recognized_by_its_content(tmp_path: Path, name: str) -> None:
    make, form, quantized = MADE[name]
    path = make(tmp_path)
    assert (detect(path), is_quantized(path), is_program(path)) == (form, quantized, False)


def test_a_program_is_recognized_by_its_content_or_its_name(tmp_path: Path) -> None:
    program = _file(tmp_path / "m", b"\x00\x00\x00\x00ET12\x00")
    assert detect(program) is Form.PROGRAM and is_program(program)
    for opened in (open_float_model, open_checkpoint):
        with pytest.raises(InputError, match="is an ExecuTorch program; give the model"):
            opened(program)
    assert is_program(_file(tmp_path / "m.pte", b"not found"))


def test_a_model_on_the_hub_is_not_fetched_to_tell() -> None:
    for name in ("hf://owner/name", Path("hf://owner/name")):
        assert detect(name) is Form.HUB


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file or folder"),
        (b"", "m: is empty, expected a model; download or write it again"),
        (b"\x80\x02", "a bare pickle"),
        (b"not found", "neither a .safetensors, a .pth nor a GGUF"),
    ],
)
def test_another_format_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m"
    if content is not None:
        path.write_bytes(content)
    for ask in (detect, is_program, is_quantized):
        with pytest.raises(InputError, match=message):
            ask(path)


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m")
    for path in (tmp_path / "m", Path("/dev/null")):
        with pytest.raises(InputError, match=f"^{path}: is a device or a pipe, but models are"):
            detect(path)


def test_another_spelling_of_smollm2_is_corrected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, is_told in (("SmolLM2", True), ("SmolLM-135M", True), ("smollm2-int4", False)):
        with pytest.raises(InputError) as refused:
            detect(name)
        told = "for SmolLM2, `quantize`, `evaluate` and `release` accept the name smollm2"
        assert str(refused.value).endswith(told) is is_told
        assert str(refused.value).startswith(f"{name}: no such file or folder")


def test_a_repository_without_hf_gets_its_full_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    hub = "https://huggingface.co/HuggingFaceTB/SmolLM2-135M"
    for address, said in (
        (hub, "hub, give hf://HuggingFaceTB/SmolLM2-135M$"),
        (f"{hub}/tree/main", "hub, give hf://HuggingFaceTB/SmolLM2-135M$"),
        ("http://x.org/model.gguf", "web addresses are not supported"),
        ("https://huggingface.co", "web addresses are not supported"),
    ):
        with pytest.raises(InputError, match=said):
            is_quantized(Path(address))
    with pytest.raises(InputError, match="hub, give hf://HuggingFaceTB/SmolLM2-135M"):
        is_quantized(Path("HuggingFaceTB/SmolLM2-135M"))
    for name in ("models/none", "none", str(tmp_path / "none"), "~/none", "hf:owner/name"):
        with pytest.raises(InputError, match=r"no such file or folder$"):
            is_quantized(Path(name))


@pytest.mark.parametrize(
    ("models", "meant"),
    [
        (["snapshots/0b5c"], "snapshots/0b5c"),  # in the hub's cache
        (["checkpoint-500", "checkpoint-1000"], "checkpoint-1000"),  # what a Trainer writes to
        (["transformers/1b/1"], "transformers/1b/1"),  # from Kaggle
    ],
)
def test_a_folder_above_the_models(tmp_path: Path, models: list[str], meant: str) -> None:
    for model in models:
        (tmp_path / model).mkdir(parents=True)
        (tmp_path / model / "config.json").write_text("{}")
    for opened in (open_float_model, open_checkpoint, is_quantized):
        with pytest.raises(InputError, match=rf"[gG]ive .*{tmp_path / meant},"):
            opened(tmp_path)
    file = tmp_path / meant / "config.json"
    for opened in (open_float_model, open_checkpoint, is_quantized):
        with pytest.raises(InputError, match=rf"is a JSON file; .*folder, {file.parent}$"):
            opened(file)


def test_recognizing_a_format_needs_no_torch() -> None:
    """So that options that fit only a program, or only a checkpoint, are checked at once."""
    code = (
        "import sys; from quatrain.checkpoint.open import is_program; from pathlib import Path; "
        "is_program(Path('m.pte')); sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_command_that_an_error_gives_quotes_its_paths(tmp_path):
    model = tmp_path / "a model"
    model.mkdir()
    with pytest.raises(InputError) as refused:
        read_tensors(_file(model / "it's.gguf", b"GGUF" + bytes(60)))
    command = refused.value.args[0].split("`")[1]
    assert shlex.split(command)[2] == str(model / "it's.gguf")
    with pytest.raises(InputError) as refused:
        check_tensor_values(torch.ones(1), "layers.0.wq.zeros", str(model), int4=True)
    assert shlex.split(refused.value.args[0].split("`")[1])[2] == str(model)
