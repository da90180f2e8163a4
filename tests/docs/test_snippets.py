"""Every shell and Python snippet of the documentation runs, on tiny models."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch
from tests.support.formats import gguf_files as ggufs
from tests.support.formats import quantized_folders as folders
from tests.support.models import tiny_models as tiny
from tests.support.models.tiny_checkpoint import FEW_SHAPES
from tests.support.paths import ROOT
from tests.support.snippets import PAGES, RUN, SHOWN, run_shell, snippets

from quatrain import export_checkpoint, open_program, quantize_model, write_program
from quatrain.program.edit.retarget import retarget
from quatrain.runtime.wgpu.adapters import list_adapters

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
WITH_SNIPPETS = [
    name for name in NAMES if any(snippet.language in RUN for snippet in snippets(ROOT / name))
]
NEEDS_A_GPU = ("docs/gpu.md",)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages name: models, their checkpoint and its program in both schemes."""
    folder = tmp_path_factory.mktemp("docs")
    tensors = tiny.float_tensors(n_layers=3, **FEW_SHAPES)
    tiny.write_hugging_face(folder / "my-model", tensors, num_hidden_layers=3, intermediate_size=64)
    words = tokenizers.models.WordLevel({f"w{i}": i for i in range(272)}, unk_token="w0")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "my-model/tokenizer.json"))
    template = "{% for message in messages %}w1 {{ message.content }}{% endfor %}"
    config = folder / "my-model/tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": template}))
    ggufs.write_gguf(folder / "model.gguf", kind="Q4_0")
    folders.write_quantized(folder / "llama-gptq", "gptq")
    zeros = {"layers.0.attention.wq": torch.ones(64, 2)}
    folders.write_quantized(folder / "llama-awq", "awq", zeros=zeros)
    folders.write_torchao(folder / "llama-torchao")
    quantize_model(folder / "my-model", folder / "my-model-int4", embedding="int4", method="rtn")
    export_checkpoint(folder / "my-model-int4", folder / "model.pte")
    program = open_program(folder / "model.pte")
    retarget(program, "weight-only")
    write_program(program, folder / "other.pte")
    return folder


def namespace(page: str) -> dict[str, Any]:
    """What a page's Python takes as given."""
    if page != "README.md":
        return {}
    model = torch.nn.Sequential(torch.nn.Linear(64, 64))
    weight, scales = torch.zeros(64, 64, dtype=torch.int8), torch.ones(64, 2)
    return {"torch": torch, "model": model, "checkpoint": {"0.weight": weight, "0.scales": scales}}


@pytest.mark.parametrize("page", WITH_SNIPPETS)
def test_snippets_run(
    page: str, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if page in NEEDS_A_GPU and not list_adapters():
        pytest.skip("no Vulkan adapter (mesa-vulkan-drivers gives one)")
    folder = Path(shutil.copytree(workspace, tmp_path / "folder"))
    monkeypatch.chdir(folder)
    names = namespace(page)
    for snippet in snippets(ROOT / page):
        if snippet.quoted:
            continue  # tests/docs/test_pages.py holds it against its file
        if snippet.language == "sh":
            run_shell(snippet, folder)
        elif snippet.language == "python":
            # Padded, so that a traceback shows the page's own line.
            exec(compile("\n" * snippet.line + snippet.text, page, "exec"), names)


@pytest.mark.parametrize("page", NAMES)
def test_every_fence_says_what_becomes_of_it(page: str) -> None:
    for snippet in snippets(ROOT / page):
        where = f"{page}:{snippet.line}"
        assert snippet.language in RUN + SHOWN, f"{where}: {snippet.language or 'no language'}"


def test_the_example_of_the_library_passes_a_type_checker(tmp_path: Path) -> None:
    example = "".join(
        snippet.text
        for snippet in snippets(ROOT / "docs/library.md")
        if snippet.language == "python"
    )
    (tmp_path / "example.py").write_text(example)
    settings = {"extraPaths": [str(ROOT / "src")], "typeCheckingMode": "standard"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_fence_is_found_where_it_is_indented(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("- one\n\n  ```sh\n  quatrain devices\n  ```\n\n```python\nx = 1\n```\n")
    found = [(one.line, one.language, one.text) for one in snippets(page)]
    assert found == [(3, "sh", "quatrain devices\n"), (7, "python", "x = 1\n")]
