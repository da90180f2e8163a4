"""Distillation of a tiny random model: nearer to floating point than what it starts from."""

import errno
import os
import random
import signal
import string
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tokenizers
import torch
import torch.nn.functional as F
from tests.support.formats import gguf_files as ggufs
from tests.support.models import tiny_models as tiny
from tests.support.paths import ROOT, contents

from quatrain.arithmetic import VULKAN_ARITHMETIC
from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.linear.int4 import compute_as
from quatrain.quantize.calibration import Calibration, tokens_of_files
from quatrain.quantize.distill.memory import fitted_to_memory
from quatrain.quantize.distill.method import working_folder
from quatrain.quantize.distill.recipe import ON_GPU, ON_PROCESSOR, Recipe, recipe_on
from quatrain.quantize.distill.teacher_data import texts_at_once
from quatrain.quantize.distill.training import Training
from quatrain.quantize.output.resumable import held_alone
from quatrain.quantize.pipeline import quantize_model
from quatrain.stages import Stages

SHORT = Recipe(steps=24, texts=4, scale_rate=5e-3, vector_rate=5e-3, warm=2)
INTEGERS_TOO = replace(SHORT, integer_rate=0.03, at_once=2, written=4096)


def distilling(recipe: Recipe) -> pytest.MonkeyPatch:
    patched = pytest.MonkeyPatch()
    patched.setattr("quatrain.quantize.calibrated_method.recipe_on", lambda *_: recipe)
    return patched


@pytest.fixture(autouse=True, scope="module")
def short(request: pytest.FixtureRequest) -> None:
    patched = distilling(replace(SHORT, steps=4))
    request.addfinalizer(patched.undo)


def write_text(file: Path, seed: int, length: int) -> Path:
    file.write_text("".join(random.Random(seed).choices(string.ascii_letters + " ", k=length)))
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in m.gguf, the text.txt that it is trained on, and an other.txt."""
    folder = tmp_path_factory.mktemp("distilled")
    ggufs.write_gguf(folder / "m.gguf", tiny.float_tensors(tied=True))
    write_text(folder / "text.txt", 0, 12_000)
    write_text(folder / "other.txt", 1, 2_048)
    return folder


def calibration(folder: Path, scheme: Scheme | None = None) -> Calibration:
    return Calibration((folder / "text.txt",), scheme=scheme)


@pytest.fixture(scope="module")
def made(folder: Path) -> tuple[dict[Scheme, list[str]], dict[Scheme, list[float]]]:
    """Writes what gptq makes and what distillation does for each scheme, named so; gives what the
    latter said as it went on, and the divergence at each step."""
    said: dict[Scheme, list[str]] = {}
    found: dict[Scheme, list[float]] = {scheme: [] for scheme in Scheme}
    step, patched = Training._step, distilling(SHORT)

    def noted(self: Training, at: int) -> float:
        assert self.scheme is not None
        found[self.scheme].append(step(self, at))
        return found[self.scheme][-1]

    patched.setattr(Training, "_step", noted)
    for scheme in Scheme:
        quantize_model(
            folder / "m.gguf",
            folder / scheme,
            method="distill",
            calibration=calibration(folder, scheme),
            stages=Stages(progress=lambda name, *_, s=scheme: said.setdefault(s, []).append(name)),
        )
        quantize_model(
            folder / "m.gguf",
            folder / f"gptq {scheme}",
            method="gptq",
            calibration=calibration(folder, scheme),
        )
    patched.undo()
    return said, found


def divergence(folder: Path, checkpoint: str, scheme: Scheme) -> float:
    """From floating point, on the other text."""
    opened, exact = open_checkpoint(folder / checkpoint), open_float_model(folder / "m.gguf")
    rounded = build_backbone(opened.config, opened.tensors, scheme)
    compute_as(rounded, VULKAN_ARITHMETIC)
    original = build_backbone(exact.config, exact.tensors)
    found = []
    for text in tokens_of_files(exact, [folder / "other.txt"]):
        logs = []
        for backbone in (rounded, original):
            backbone.reset()
            logits = backbone.logits(backbone.hidden(text[None], 0))[0]
            logs.append(F.log_softmax(logits, -1))
        found.append(F.kl_div(*logs, reduction="batchmean", log_target=True))
    return float(torch.stack(found).mean())


@pytest.mark.parametrize("scheme", Scheme)
def test_it_comes_nearer_than_what_it_starts_from(made, folder: Path, scheme: Scheme) -> None:
    gptq = divergence(folder, f"gptq {scheme}", scheme)
    assert divergence(folder, scheme, scheme) < 0.97 * gptq


@pytest.mark.parametrize("scheme", Scheme)
def test_the_divergence_falls_and_is_shown(made, scheme: Scheme) -> None:
    said, found = made[0][scheme], made[1][scheme]
    shown = [name for name in said if name.startswith("distill: divergence ")]
    assert len(shown) == len(found) == SHORT.steps
    assert shown[0] == f"distill: divergence {found[0]:.4f}"
    half = SHORT.steps // 2  # more than once through the text
    assert sum(found[half:]) < 0.96 * sum(found[:half])


@pytest.mark.parametrize("scheme", Scheme)
def test_integers_stay_and_floats_move(made, folder: Path, scheme: Scheme) -> None:
    """The embedding and the output layer stay one table; scales are values of bfloat16."""
    gptq = open_checkpoint(folder / f"gptq {scheme}").tensors
    found = open_checkpoint(folder / scheme).tensors
    assert list(found) == list(gptq)
    for name, tensor in found.items():
        assert torch.equal(tensor, gptq[name]) == (tensor.dtype == torch.int8), name
        if name.endswith(".scales"):
            assert torch.equal(tensor, tensor.bfloat16().float()), name
    assert torch.equal(found["tok_embeddings.scales"], found["output.scales"])


@pytest.mark.parametrize("table", ["input", "output"])
def test_of_tables_of_all_tokens_the_kept_rows_are_trained(table, folder: Path, tmp_path: Path):
    """The others are as they were rounded, and the checkpoint is read."""
    kept = {row: 2 * row for row in range(101)}
    pruned = {f"{table}_prune_map": kept}
    model = tiny.write_meta(tmp_path / "m", tiny.float_tensors(tied=True), **pruned)
    letters = {letter: index for index, letter in enumerate(string.printable)}
    words = tokenizers.Tokenizer(tokenizers.models.BPE(letters, []))
    words.save(str(model / "tokenizer.json"))
    made = {}
    for method in ("gptq", "distill"):
        quantize_model(model, tmp_path / method, method=method, calibration=calibration(folder))
        opened = open_checkpoint(tmp_path / method)
        made[method] = {name: opened.tensors[name] for name in opened.tensors}
    name = {"input": "tok_embeddings.scales", "output": "output.scales"}[table]
    moved = (made["gptq"][name] != made["distill"][name]).any(-1)
    rows = torch.tensor(list(kept.values()))
    assert moved[rows].any() and moved.sum() == moved[rows].sum()


def test_integers_too(made, folder: Path) -> None:
    """As on a GPU, on texts that the model writes as well; the tied tables stay one."""
    patched = distilling(INTEGERS_TOO)
    distill(folder, folder / "integers", Scheme.WEIGHT_ONLY)
    patched.undo()
    gptq = open_checkpoint(folder / f"gptq {Scheme.WEIGHT_ONLY}").tensors
    found = open_checkpoint(folder / "integers").tensors
    integers = {name: tensor for name, tensor in found.items() if tensor.dtype == torch.int8}
    moved = {name: (one.int() - gptq[name].int()).abs() for name, one in integers.items()}
    assert all(one.float().mean() < 0.5 for one in moved.values())
    assert sum(bool(one.any()) for one in moved.values()) > len(moved) / 2
    assert all(one.min() >= -8 and one.max() <= 7 for one in integers.values())
    assert torch.equal(found["tok_embeddings.weight"], found["output.weight"])


def distill(folder: Path, output: Path, scheme: Scheme | None = None) -> None:
    quantize_model(
        folder / "m.gguf", output, method="distill", calibration=calibration(folder, scheme)
    )


@pytest.fixture(scope="module")
def whole(folder: Path) -> dict[str, bytes]:
    """What is written without an interruption."""
    distill(folder, folder / "whole")
    return contents(folder / "whole")


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[1]))
sys.path.insert(0, sys.argv[2])
from quatrain.quantize.distill import training
from test_distill import *

step = Training._step
def killing(self, at):
    if at == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, at)

Training._step = killing
training._SECONDS_BETWEEN_SAVES = 0.0
distilling(replace(SHORT, steps=4))
folder = Path(sys.argv[3])
distill(folder, folder / "killed")
"""


def test_killed_it_goes_on_to_the_same_bytes(folder: Path, whole: dict[str, bytes]) -> None:
    """Both schemes by turns; it neither rounds anew nor begins again with the first step."""
    threads = str(torch.get_num_threads())
    arguments = [sys.executable, "-c", KILLED, threads, Path(__file__).parent, folder]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    killed = subprocess.run(arguments, env=os.environ | {"PYTHONPATH": path}, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (folder / "killed").exists() and (folder / ".killed.distilling").is_dir()
    steps, step = [], Training._step
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Training, "_step", lambda self, at: (steps.append(at), step(self, at))[1])
        patched.setattr("quatrain.quantize.distill.method.Gptq", None)
        distill(folder, folder / "killed")
    assert steps == [3]
    assert not (folder / ".killed.distilling").exists()
    assert contents(folder / "killed") == whole


def stopped(folder: Path, output: Path) -> Path:
    """The folder kept of a training to `output` that was stopped at its last step."""

    def stopping(self: Training, at: int) -> float:
        if at == 3:
            raise KeyboardInterrupt
        return step(self, at)

    step = Training._step
    with pytest.MonkeyPatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Training, "_step", stopping)
        patched.setattr("quatrain.quantize.distill.training._SECONDS_BETWEEN_SAVES", 0.0)
        distill(folder, output)
    return working_folder(output)


def test_what_was_damaged_is_made_again(folder: Path, whole: dict[str, bytes]) -> None:
    """While another process works there, nothing is, and nothing is removed."""
    (folder / "real").mkdir()
    (folder / "link").symlink_to("real")
    kept = stopped(folder, folder / "link")
    assert kept == folder / ".real.distilling"
    with held_alone(folder / "link", kept), pytest.raises(InputError, match="another process"):
        distill(folder, folder / "link")
    for name in ("training.pt", "teacher.pt", "rounded/model.safetensors"):
        content = bytearray((kept / name).read_bytes())
        content[len(content) * 2 // 3] ^= 1
        (kept / name).write_bytes(content)
    distill(folder, folder / "link")
    assert contents(folder / "real") == whole


def test_what_another_request_left_is_thrown_away(folder: Path, monkeypatch) -> None:
    def stopping(self, at):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Training, "_step", stopping)
        distill(folder, folder / "other request", Scheme.WEIGHT_ONLY)
    key = folder / ".other request.distilling" / "key"
    before = key.read_text()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Training, "_step", stopping)
        distill(folder, folder / "other request", Scheme.DYNAMIC_INT8)
    assert key.read_text() != before


def test_a_divergence_that_is_not_finite_leaves_nothing(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(Training, "_step", lambda self, at: float("nan"))
    with pytest.raises(InputError, match=r"divergence is nan at step 1.*--method gptq"):
        distill(folder, folder / "nan")
    assert not [file for file in folder.iterdir() if "nan" in file.name]


def test_a_full_disk_is_gone_on_from(folder: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr("quatrain.quantize.distill.training.save", full)
        with pytest.raises(
            InputError, match=r"No space left.*run the command again, which resumes"
        ):
            distill(folder, folder / "full")
    assert not (folder / "full").exists()
    monkeypatch.setattr("quatrain.quantize.distill.method.Gptq", None)
    distill(folder, folder / "full")
    open_checkpoint(folder / "full").check_values()


def test_a_model_too_large_to_be_trained_is_refused_at_once(folder: Path, monkeypatch) -> None:
    sizes = {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr("quatrain.stages.os.sysconf", sizes.__getitem__)
    with pytest.raises(
        InputError,
        match=(
            r"--method distill trains the whole model at once, which needs about 1 GB .* use "
            r"--method gptq"
        ),
    ):
        distill(folder, folder / "large")
    assert not [file for file in folder.iterdir() if "large" in file.name]


def test_a_model_that_writes_no_texts_keeps_its_integers() -> None:
    gpu, processor = torch.device("cuda"), torch.device("cpu")
    assert [recipe_on(gpu, True), recipe_on(gpu, False)] == [ON_GPU, ON_PROCESSOR]
    assert recipe_on(processor, True) == ON_PROCESSOR and not ON_PROCESSOR.integer_rate


@pytest.mark.parametrize(("memory", "at_once"), [(1e12, 32), (15e9, 32), (8e9, 8), (4.8e9, 1)])
def test_as_many_texts_are_computed_together_as_memory_holds(memory, at_once, monkeypatch) -> None:
    """Of a model of SmolLM2's shape, on a GPU."""
    monkeypatch.setattr(
        "quatrain.quantize.distill.memory.memory_of", lambda device: (memory, "GPU")
    )
    config = SimpleNamespace(vocab_size=49152, dim=576, n_layers=30, hidden_dim=1536, expert_dim=0)
    stored = {"weights": SimpleNamespace(shape=(134_515_008,))}
    model = SimpleNamespace(config=config, tensors=SimpleNamespace(stored=stored), source="m")
    found = fitted_to_memory(ON_GPU, model, 8448, 256, torch.device("cuda"))
    assert found == replace(ON_GPU, at_once=at_once)


@pytest.mark.parametrize(("memory", "texts"), [(80e9, 339), (8e9, 84), (1e6, 1)])
def test_as_many_texts_are_written_together_as_memory_holds(memory, texts, monkeypatch) -> None:
    monkeypatch.setattr(
        "quatrain.quantize.distill.teacher_data.memory_of", lambda _: (memory, "GPU")
    )
    layer = SimpleNamespace(n_kv_heads=3, head_dim=64)
    config = SimpleNamespace(n_layers=30, layer=lambda index: layer)
    assert texts_at_once(config, 256, torch.device("cuda")) == texts
