"""`hf://owner/name` through huggingface_hub's own code, on a cache laid out as it lays one out."""

import os
import subprocess
import sys

import pytest
import quantized_folders as folders
import tiny_models as tiny

from quatrain.checkpoint.hub import local_path
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
    done = run(tmp_path, "quantize", "hf://someone/tiny", "-o", str(tmp_path / "b"))
    assert done.returncode == 0, done.stderr
    for folder in ("a", "b"):
        assert (tmp_path / folder / "model.safetensors").is_file()


def test_what_is_not_there_is_one_error(tmp_path):
    done = run(tmp_path, "convert", "hf://someone/absent", str(tmp_path / "a"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: hf://someone/absent: cannot be fetched")


@pytest.mark.parametrize("name", ["hf://", "hf://one", "hf://a/b/c", "hf://../x", "hf:/a/b@"])
def test_names_that_are_none(name):
    with pytest.raises(InputError, match="expected hf://owner/name"):
        local_path(name)


def test_other_paths_are_left_alone(tmp_path):
    assert local_path(tmp_path) == tmp_path
    assert local_path("model.gguf").name == "model.gguf"
