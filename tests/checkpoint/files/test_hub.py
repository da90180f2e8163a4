"""`hf://owner/name` through huggingface_hub's own code, on a cache laid out as it lays one out."""

import os
import subprocess
import sys

import pytest
from huggingface_hub.errors import OfflineModeIsEnabled
from huggingface_hub.utils import filter_repo_objects
from tests.support.formats import quantized_folders as folders
from tests.support.models import tiny_models as tiny

from quatrain.checkpoint.files.hub import local_path
from quatrain.errors import InputError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def cached(home, name, write, *arguments):
    """Put what `write(folder, *arguments)` makes into the cache below `home`."""
    model = home / "hub" / f"models--{name.replace('/', '--')}"
    snapshot = model / "snapshots" / COMMIT
    write(snapshot, *arguments)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    return snapshot


def run(home, *arguments):
    """The command line without a network: huggingface_hub reads its settings once, at import."""
    environment = os.environ | {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-c", "from quatrain.cli import main; main()", *arguments],
        env=environment,
        capture_output=True,
        text=True,
    )


def test_quantized_and_floating_models_come_from_the_cache(tmp_path):
    cached(tmp_path, "someone/tiny-gptq", folders.write_quantized, "gptq")
    cached(tmp_path, "someone/tiny", tiny.write_hugging_face)
    done = run(tmp_path, "convert", "hf://someone/tiny-gptq", str(tmp_path / "a"))
    assert done.returncode == 0, done.stderr
    done = run(
        tmp_path, "quantize", "hf://someone/tiny", "-o", str(tmp_path / "b"), "--method", "rtn"
    )
    assert done.returncode == 0, done.stderr
    for folder in ("a", "b"):
        assert (tmp_path / folder / "model.safetensors").is_file()


SAFETENSORS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]


@pytest.mark.parametrize(
    ("weights", "fetched"),
    [
        ([*SAFETENSORS, "consolidated.00.pth", "pytorch_model.bin"], SAFETENSORS),
        (["model.safetensors", "consolidated.safetensors"], ["model.safetensors"]),
        (["consolidated.safetensors"], ["consolidated.safetensors"]),
        (["consolidated.00.pth", "consolidated.01.pth"],) * 2,
        (["pytorch_model.bin"],) * 2,
        (["qmodel.pt", "optimizer.pt", "sub/qmodel.pt"], ["qmodel.pt"]),
    ],
)
def test_one_form_of_the_weights_is_fetched(tmp_path, monkeypatch, weights, fetched):
    said = ["params.json", "tokenizer.json"]
    there = [*weights, *said, "README.md", "original/consolidated.00.pth"]

    def download(name, revision, allow_patterns, ignore_patterns):
        for file in filter_repo_objects(
            there, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        ):
            (tmp_path / file).write_text("")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert local_path("hf://someone/model") == tmp_path
    assert {file.name for file in tmp_path.iterdir()} == {*fetched, *said}


def test_chat_templates_with_names_are_fetched_and_nothing_else_further_down(tmp_path, monkeypatch):
    named = [f"additional_chat_templates/{name}.jinja" for name in ("tool_use", "v1.5", "j.x-y")]
    there = [
        "model.safetensors", "chat_template.jinja", *named, "onnx/model.onnx", "onnx/config.json",
        "original/consolidated.00.pth", "original/tokenizer.model", "gguf/m.q4.safetensors",
    ]  # fmt: skip
    fetched = set()

    def download(name, revision, allow_patterns, ignore_patterns):
        fetched.update(
            filter_repo_objects(
                there, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
            )
        )
        return str(tmp_path)

    (tmp_path / "model.safetensors").touch()
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    local_path("hf://someone/model")
    assert fetched == {"model.safetensors", "chat_template.jinja", *named}


def test_a_repository_of_gguf_files_says_how_to_fetch_one(tmp_path, monkeypatch):
    there = ["README.md", "config.json", "m-Q8_0.gguf", "m-Q4_0.gguf"]
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", lambda *_, **__: there)
    says = r"GGUF files: m-Q4_0.gguf, m-Q8_0.gguf; fetch one with `hf download some/m m-Q4_0.gguf "
    with pytest.raises(InputError, match=says):
        local_path("hf://some/m")
    there[2:] = []
    assert local_path("hf://some/m") == tmp_path

    def offline(*_, **__):
        raise OfflineModeIsEnabled("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.list_repo_files", offline)
    assert local_path("hf://some/m") == tmp_path


def test_what_is_not_there_is_one_error(tmp_path):
    done = run(tmp_path, "convert", "hf://someone/absent", str(tmp_path / "a"))
    assert done.returncode == 2
    # A slow machine may say first that it imports torch.
    said = [line for line in done.stderr.splitlines() if not line.startswith("  import torch ")]
    assert said[0].startswith("error: hf://someone/absent: cannot be fetched")


@pytest.mark.parametrize("name", ["hf://", "hf://one", "hf://a/b/c", "hf://../x", "hf:/a/b@"])
def test_names_that_are_not_valid(name):
    with pytest.raises(InputError, match="expected hf://owner/name"):
        local_path(name)


def test_a_file_in_a_repository():
    with pytest.raises(
        InputError, match=r"expected hf://.*; fetch one with `hf download a/b c.gguf"
    ):
        local_path("hf://a/b/c.gguf")


def test_other_paths_are_left_alone(tmp_path):
    assert local_path(tmp_path) == tmp_path
    assert local_path("model.gguf").name == "model.gguf"
