"""Every constant of a program is the checkpoint's, whoever exported it, and what it states too."""

import json
import shutil
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.command_line import invoked
from tests.support.comparisons.verified import assert_verified, wrong_beside
from tests.support.defects.edited_methods import edited_constants
from tests.support.models.peer_models import LLAMA, QWEN, write_peer_checkpoint
from tests.support.models.tiny_checkpoint import write_checkpoint
from tests.support.models.tiny_models import PARAMS
from tests.support.models.tiny_programs import Tiny
from tests.support.paths import ARTIFACTS

from quatrain.backbone.model import Backbone
from quatrain.backbone.params.params import config_from_params
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.int4 import Scheme
from quatrain.program import open_program
from quatrain.runtime.reference import ReferenceRunner
from quatrain.runtime.runner import forward_in_parts
from quatrain.verify.checks import packed_constants
from quatrain.verify.checks.other_tensors import expected_forms, has_similar, round_if_stored
from quatrain.verify.checks.packed_constants import check_packed
from quatrain.verify.checks.unrounded import LOGITS_ERROR
from quatrain.verify.verify import VerifyReport, verify_program

Tensors = dict[str, torch.Tensor]
SHORT = "w5 w17 w40 w9 w22"
PEERS = {
    "peer-8da4w-fp32": LLAMA, "peer-weight-only-fp32": LLAMA, "peer-weight-only-fp16": LLAMA,
    "peer-xnnpack-8da4w": LLAMA, "peer-qwen-8da4w-fp32": QWEN,
    "peer-xnnpack-qwen-fp16": QWEN,
}  # fmt: skip

SMALL = LLAMA | {"n_layers": 1}


def _verify(program: Path, checkpoint: Path) -> VerifyReport:
    device = "executorch" if "xnnpack" in str(program) else "reference"
    return verify_program(program, checkpoint, (device,), (SHORT,), 3)


def _problems(report: VerifyReport) -> set[str]:
    return {one.name for one in report.packed if one.problem}


@pytest.fixture(scope="module")
def peer(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict], Path]:
    """The checkpoint of a peer's model."""
    folders: dict[int, Path] = {}

    def written(params: dict) -> Path:
        if id(params) not in folders:
            folders[id(params)] = tmp_path_factory.mktemp("peer")
            write_peer_checkpoint(folders[id(params)], params)
        return folders[id(params)]

    return written


@pytest.mark.parametrize("name", PEERS)
def test_a_right_program_of_executorchs_own_exporter_passes(name: str, peer: Callable) -> None:
    report = _verify(ARTIFACTS / f"{name}.pte", peer(PEERS[name]))
    assert report.passed
    assert report.not_compared == []
    assert (report.unrounded is not None) is ("xnnpack" in name)
    assert report.unrounded is None or report.unrounded.error < LOGITS_ERROR
    names = {one.name for one in report.packed}
    assert {"norm.weight", "rope.cos", "tok_embeddings", "layers.0.attention.wq"} <= names


@pytest.mark.parametrize("name", ["peer-static", "peer-every-row"])
def test_calls_of_one_token_alone_and_rows_for_every_token(
    name: str, peer: Callable, tmp_path: Path
) -> None:
    """8da4w quantizes no single row, as of a program of static shapes, and quantizes the output
    layer's rows where a program gives those of all tokens."""
    program, folder = ARTIFACTS / "other" / f"{name}.pte", peer(SMALL)
    assert _verify(program, folder).passed
    runner, tokens = ReferenceRunner(program), torch.tensor([[5, 17, 40, 9, 22]])
    read = forward_in_parts(runner, tokens, 0)
    runner.reset()
    steps = [runner.forward(tokens[:, i : i + 1], torch.tensor([i])) for i in range(5)]
    assert torch.equal(read[0], steps[-1].reshape(-1)) is (name == "peer-static")
    other = shutil.copytree(folder, tmp_path / "other")
    tensors = torch.load(other / "model.pth")
    tensors["output.weight"][3] = -tensors["output.weight"][3]
    torch.save(tensors, other / "model.pth")
    assert not _verify(program, other).passed


def _other_norms(tensors: Tensors) -> None:
    """Of another training of the same model."""
    generator = torch.Generator().manual_seed(1)
    for name, tensor in tensors.items():
        if "norm" in name:
            tensors[name] = tensor * (1 + 0.02 * torch.randn(tensor.shape, generator=generator))


def _all_rows(tensors: Tensors) -> None:
    name = (
        "tok_embeddings.scales" if "tok_embeddings.scales" in tensors else "tok_embeddings.weight"
    )
    tensors[name] = tensors[name] * 1.01


def _one_bias(tensors: Tensors) -> None:
    tensors["layers.0.attention.wk.bias"][3] *= 1.01


NORMS = {"norm.weight"} | {
    f"layers.{layer}.{name}.weight" for layer in (0, 1) for name in ("attention_norm", "ffn_norm")
}


@pytest.mark.parametrize(
    ("name", "change", "wrong"),
    [
        ("peer-xnnpack-8da4w", _other_norms, NORMS),
        ("peer-weight-only-fp16", _other_norms, NORMS),
        ("peer-xnnpack-8da4w", _all_rows, {"tok_embeddings"}),
        ("peer-qwen-8da4w-fp32", _one_bias, {"layers.0.attention.wk.bias"}),
        ("peer-xnnpack-qwen-fp16", _one_bias, {"layers.0.attention.wk"}),
    ],
)
def test_another_models_constants_are_reported(
    name: str, change: Callable[[Tensors], None], wrong: set[str], peer: Callable, tmp_path: Path
) -> None:
    """With linears alike, and, of the whole of norms or of a table, whoever exported them."""
    other = Path(shutil.copytree(peer(PEERS[name]), tmp_path / "other"))
    tensors = torch.load(other / "model.pth")
    change(tensors)
    torch.save(tensors, other / "model.pth")
    report = _verify(ARTIFACTS / f"{name}.pte", other)
    assert not report.passed and _problems(report) == wrong


def test_all_norms_of_another_model_are_reported_in_our_program(
    tiny: Tiny, tiny_xnnpack: Path, tmp_path: Path
) -> None:
    for change, wrong in ((_other_norms, NORMS), (_all_rows, {"tok_embeddings"})):
        other = Path(shutil.copytree(tiny.checkpoint, tmp_path / change.__name__))
        tensors = load_file(other / "model.safetensors")
        change(tensors)
        save_file(tensors, other / "model.safetensors")
        assert _problems(_verify(tiny_xnnpack, other)) == wrong


@pytest.mark.parametrize(
    ("field", "value", "wrong"),
    [
        ("rope_theta", 10100.0, {"rope.cos", "rope.sin"}),
        ("norm_eps", 1.01e-5, {"the norms' epsilon, 1.01e-05"}),
        ("eos_idx", [2, 5], {"get_eos_ids"}),
    ],
)
@pytest.mark.parametrize("backend", ["vulkan", "xnnpack"])
def test_parameters_that_affect_few_tokens_are_checked(
    backend: str, field: str, value: Any, wrong: set[str],
    tiny: Tiny, tiny_xnnpack: Path, tmp_path: Path,
) -> None:  # fmt: skip
    other = Path(shutil.copytree(tiny.checkpoint, tmp_path / "other"))
    params = json.loads((other / "params.json").read_text())
    (other / "params.json").write_text(json.dumps(params | {field: value}))
    program = tiny_xnnpack if backend == "xnnpack" else tiny.programs["weight-only"]
    report = _verify(program, other)
    assert wrong <= _problems(report)
    # A context of 64 tokens, of which the text has 8: it is what is stored that tells.
    assert not report.devices[0].problems or backend == "vulkan"


@pytest.mark.parametrize(
    ("method", "value", "problem"),
    [
        ("get_max_seq_len", 65, "is 65, and a call takes 64 tokens"),
        ("use_kv_cache", False, "is not stated"),
        ("enable_dynamic_shape", False, "is not stated"),
    ],
)
def test_what_a_program_of_ours_states_is_compared(
    method: str, value: int, problem: str, tiny: Tiny, tmp_path: Path
) -> None:
    edit = edited_constants(tiny.programs["weight-only"], {method: value})
    report = _verify(edit(tmp_path), tiny.checkpoint)
    problems = {one.name: one.problem for one in report.packed if one.problem}
    assert problems == {method: problem}


def test_another_tokenizer_beside_the_program_is_reported(tiny: Tiny, tmp_path: Path) -> None:
    program = Path(shutil.copy(tiny.programs["weight-only"], tmp_path))
    words = json.loads((tiny.checkpoint / "tokenizer.json").read_text())
    vocabulary = words["model"]["vocab"]
    vocabulary["w80"], vocabulary["w81"] = vocabulary["w81"], vocabulary["w80"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(words))
    report = _verify(program, tiny.checkpoint)
    (wrong,) = (one.problem for one in report.packed if one.problem)
    assert wrong.startswith("has 'w81' as token 80, the checkpoint's has 'w80'; give ")
    vocabulary |= {f"w{i}": (i + 1) % 96 for i in range(96)}
    (tmp_path / "tokenizer.json").write_text(json.dumps(words))
    (wrong,) = (one.problem for one in _verify(program, tiny.checkpoint).packed if one.problem)
    assert wrong.startswith("gives the prompts other tokens than the checkpoint's")
    given = verify_program(
        program, tiny.checkpoint, ("reference",), (SHORT,), 3,
        tokenizer=tiny.checkpoint / "tokenizer.json",
    )  # fmt: skip
    assert given.passed


def test_a_tokenizer_of_the_checkpoints_that_is_not_read_is_said(
    tiny: Tiny, tmp_path: Path
) -> None:
    """Llama 3's folders from Meta hold tiktoken's ranks alone; the program got another form."""
    program = Path(shutil.copy(tiny.programs["weight-only"], tmp_path))
    shutil.copy(tiny.checkpoint / "tokenizer.json", tmp_path)
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny.checkpoint, folder, ignore=shutil.ignore_patterns("tokenizer*"))
    ranks = b"\n".join(b64encode(bytes([byte])) + b" %d" % byte for byte in range(96))
    (folder / "tokenizer.model").write_bytes(ranks)
    report = _verify(program, folder)
    assert report.passed
    (said,) = report.not_compared
    assert said.startswith(f"the tokenizer: the checkpoint's own, {folder / 'tokenizer.model'}, is")


class _Stored:
    """A program that holds those vectors."""

    def __init__(self, *vectors: torch.Tensor) -> None:
        self.vectors = vectors

    def has(self, data: bytes, name: str) -> bool:
        return False

    def of_length(self, count: int) -> Iterator[torch.Tensor]:
        return (vector.double() for vector in self.vectors if len(vector) == count)


def test_what_another_exporter_may_hold_in_a_norms_place() -> None:
    generator = torch.Generator().manual_seed(0)
    weight, noise = (torch.randn(64, generator=generator) for _ in range(2))
    weight = 1 + 0.3 * weight
    for same in (weight.bfloat16(), weight.half(), weight - 1, (weight - 1).half().float()):
        stored, tensor = _Stored(torch.ones(64), same), weight.clone()
        assert has_similar(stored, weight) is False
        assert round_if_stored(stored, [[tensor]])
        assert any(torch.equal(tensor, same + less) for less in (0, 1))
    changed = weight.clone()
    changed[5] *= 1.01
    for another in (changed, weight * (1 + noise / 100), 1 + 0.3 * noise):
        assert has_similar(_Stored(torch.ones(64), another), weight) is True
        assert not round_if_stored(_Stored(torch.ones(64), another), [[weight]])
    # Folded into linears, or with a factor, or of another length: nothing can be said.
    for unknown in (torch.ones(64), 8 * weight, weight[:32], torch.zeros(64)):
        assert has_similar(_Stored(unknown), weight) is None


def test_what_is_not_compared_is_said(peer: Callable, tmp_path: Path) -> None:
    """A table that was rounded as it was exported, in a model that nearly is the checkpoint's, and
    a window that no text leaves."""
    rounded = Path(shutil.copytree(peer(LLAMA), tmp_path / "rounded"))
    params = json.loads((rounded / "params.json").read_text())
    (rounded / "params.json").write_text(json.dumps(params | {"sliding_window": 20}))
    report = _verify(ARTIFACTS / "peer-8da4w-fp32-emb4.pte", rounded)
    table, window = report.not_compared
    assert table.startswith("tok_embeddings, which the program holds in another form")
    assert window.startswith("attention beyond a window of 20 tokens: the texts have 7 tokens")
    words = ["verify", str(ARTIFACTS / "peer-8da4w-fp32.pte"), str(rounded), "--device",
             "reference", "--prompt", SHORT, "--new-tokens", "3"]  # fmt: skip
    shown = invoked(words).output
    assert "not compared: attention beyond a window of 20 tokens" in shown
    assert "over texts of up to\n  7 tokens" in shown


def test_linears_that_the_graphs_shape_does_not_name_are_found_by_their_weights(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of Gemma 3n's streams, which no role fits."""
    graph = open_program(tiny.programs["weight-only"]).vulkan
    tensors = load_file(tiny.checkpoint / "model.safetensors")
    named = packed_constants.find_linears(graph)
    names = [linear.name for linear in named]
    unnamed = [
        linear if linear.role == "output" else replace(linear, name=f"operator_{i}")
        for i, linear in enumerate(named)
    ]
    monkeypatch.setattr(packed_constants, "find_linears", lambda graph: unnamed)
    checks = check_packed(graph, tensors, 32, names)
    assert [(one.name, one.problem) for one in checks] == [(name, None) for name in names]
    tensors["layers.1.attention.wk.weight"][0, 3] ^= 1
    wrong = [one for one in check_packed(graph, tensors, 32, names) if one.problem]
    assert [one.name for one in wrong] == ["operator_8", "layers.1.attention.wk"]


def test_end_tokens_of_the_programs_own_tokenizer_are_accepted(tiny: Tiny, tmp_path: Path) -> None:
    """With a --tokenizer that does not state the end of a text."""
    checkpoint = Path(shutil.copytree(tiny.checkpoint, tmp_path / "checkpoint"))
    config = checkpoint / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"eos_token": "w5"}))
    program = tmp_path / "m.pte"
    export_checkpoint(checkpoint, program, ExportOptions(Scheme.WEIGHT_ONLY))
    assert open_program(program).stated["get_eos_ids"] == 5
    (tmp_path / "given").mkdir()
    given = shutil.copy(checkpoint / "tokenizer.json", tmp_path / "given")

    def problems() -> set[str]:
        prompts = (SHORT,)
        return _problems(
            verify_program(program, checkpoint, ("reference",), prompts, 3, tokenizer=given)
        )

    assert not problems()
    (tmp_path / "m.tokenizer_config.json").unlink()
    assert problems() == {"get_eos_ids"}


@pytest.mark.parametrize(("interval", "is_looked_for"), [(1, False), (2, True)])
def test_tables_of_rotations_are_looked_for_if_a_layer_reads_them(
    interval: int, is_looked_for: bool
) -> None:
    params = {**PARAMS, "n_layers": 2, "no_rope_layer_interval": interval}
    backbone = Backbone(config_from_params(params, "params.json"))
    names = {name for name, _ in expected_forms(backbone, biases=False)}
    assert ("rope.cos" in names) is is_looked_for and "norm.weight" in names


def test_dequantized_linears_of_a_cpu_program_are_the_checkpoints(tmp_path: Path) -> None:
    """In groups of 16, for which XNNPACK has no kernel, of either sign: Vulkan's alone."""
    checkpoint = write_checkpoint(tmp_path / "c", group_size=16, n_layers=1)
    tensors = load_file(checkpoint / "model.safetensors")
    for name, scales in tensors.items():
        if name.startswith("layers.") and name.endswith(".scales"):
            scales[::2] *= -1
    save_file(tensors, checkpoint / "model.safetensors")
    options = ExportOptions(backend="xnnpack", allow_fallback=True)
    program = export_checkpoint(checkpoint, tmp_path / "m.pte", options).output
    assert_verified(program, checkpoint)

    def change(tensors: Tensors) -> None:
        tensors["layers.0.attention.wv.scales"][-1, -1] *= 1.01

    joined = {f"layers.0.attention.{name}" for name in ("wq", "wk", "wv")}
    assert set(wrong_beside(program, checkpoint, change)) == joined
