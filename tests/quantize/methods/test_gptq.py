"""Second-order rounding of whole models: every family comes nearer to floating point."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import tokenizers
import torch
import typer
from tests.support.formats import gguf_files as ggufs
from tests.support.models import tiny_models as tiny
from tests.support.models.families import ROWS
from tests.support.models.family_errors import model_of
from tests.support.models.knobs import KNOBS, Peer, write_meta_folder
from tests.support.models.peers import saved
from tests.support.thorough import thorough

from quatrain.backbone.build import build_backbone
from quatrain.backbone.layer_by_layer import LayerByLayer
from quatrain.checkpoint.float_model import FloatModel
from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.commands.quantize import quantize
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.quantize.calibration import LENGTH, Calibration, rows_of_text, tokens_of_files
from quatrain.quantize.methods.gptq import Gptq
from quatrain.quantize.pipeline import quantize_model
from quatrain.quantize.plan.plan_model import plan_model
from quatrain.quantize.tensor_formats import ForBackend, Rounding
from quatrain.stages import Stages
from quatrain.tokenizer import Tokenizer

OF_ITSELF = Calibration(self_generated=2048, scheme=Scheme.WEIGHT_ONLY)
# Whose linears read something else, or stand elsewhere: rotations and windows change neither.
UNLIKE_FAMILIES = {
    "llama tied", "llama with every bias", "phi4 mini", "gemma3", "granite", "glm4", "olmo2",
    "stablelm, in parallel", "cohere2", "nemotron", "lfm2", "qwen3 moe", "llama4",
    "granite 4 h", "youtu",
}  # fmt: skip
FEW = {"use_residual_gate", "num_kv_shared_layers", "output_linear_intermediate_dim"}
NO_TEXT_OF_ITSELF = {"apply_embedding", "apply_output", "input_prune_map", "output_prune_map"}


def error(model: FloatModel, checkpoint, tokens: torch.Tensor) -> float:
    """Of the last hidden states, relative."""
    exact = LayerByLayer(model.config, model.tensors, hidden_output=True).hidden(tokens)
    opened = open_checkpoint(checkpoint)
    rounded = build_backbone(opened.config, opened.tensors, Scheme.WEIGHT_ONLY)
    found = []
    for text in tokens:
        rounded.reset()
        found.append(rounded.hidden(text[None], 0)[0])
    return float((torch.stack(found) - exact).norm() / exact.norm())


def errors(folder, tmp_path, calibration=OF_ITSELF) -> tuple[float, float]:
    """After second-order rounding and after rounding to nearest, on another text."""
    model = open_float_model(folder)
    quantize_model(folder, tmp_path / "gptq", calibration=calibration)
    quantize_model(folder, tmp_path / "rtn", embedding="int4", method="rtn")
    tokens = torch.randint(model.config.vocab_size, (8, 24))
    return error(model, tmp_path / "gptq", tokens), error(model, tmp_path / "rtn", tokens)


@pytest.mark.parametrize(
    "name", [*sorted(UNLIKE_FAMILIES), *thorough(sorted(ROWS.keys() - UNLIKE_FAMILIES))]
)
def test_every_family_comes_nearer(name, tmp_path):
    gptq, rtn = errors(saved(model_of(ROWS[name]), tmp_path / "m"), tmp_path)
    assert gptq < rtn, (gptq, rtn)


@pytest.mark.parametrize(
    "name", [*sorted(FEW), *thorough(sorted(KNOBS.keys() - NO_TEXT_OF_ITSELF - FEW))]
)
def test_every_knob_comes_nearer(name, tmp_path):
    folder = write_meta_folder(tmp_path / "m", KNOBS[name], Peer(KNOBS[name]).state)
    gptq, rtn = errors(folder, tmp_path)
    assert gptq < rtn, (gptq, rtn)


@pytest.mark.parametrize("method", ["gptq", "rtn"])
def test_for_vulkan_alone_comes_nearer(method: Rounding, tmp_path: Path) -> None:
    """With scales of either sign, in every int4 matrix, the tied table too."""
    folder = ggufs.write_gguf(tmp_path / "m.gguf", tiny.float_tensors(tied=True))
    model, calibration = open_float_model(folder), OF_ITSELF if method == "gptq" else None
    found = {}
    for backend in get_args(ForBackend):
        report = quantize_model(
            folder, tmp_path / backend, embedding="int4", method=method, calibration=calibration,
            backend=backend,
        )  # fmt: skip
        written = open_checkpoint(tmp_path / backend)
        scales = [written.tensors[n] for n in written.tensors if n.endswith(".scales")]
        negative = [int((of_one < 0).sum()) for of_one in scales]
        assert all(negative) == any(negative) == (backend == "vulkan")
        assert report.negative_scales == sum(negative)
        tokens = torch.randint(model.config.vocab_size, (8, 24))
        found[backend] = error(model, tmp_path / backend, tokens)
    assert found["vulkan"] < found["any"], found


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """2000 words of which no two neighbours repeat for long."""
    file = tmp_path / "text.txt"
    file.write_text(" ".join(str(i * i % 997) for i in range(2000)))
    return file


def test_a_tied_table_is_one_table(tmp_path: Path, text: Path) -> None:
    tensors = tiny.float_tensors(tied=True)
    model = ggufs.write_gguf(tmp_path / "m.gguf", tensors)
    quantize_model(model, tmp_path / "out", calibration=Calibration((text,)))
    written = open_checkpoint(tmp_path / "out")
    assert (written.embedding_kind, written.output_kind) == ("int4", "int4")
    for part in ("weight", "scales"):
        embedding, output = (
            written.tensors[f"{name}.{part}"] for name in ("tok_embeddings", "output")
        )
        assert torch.equal(embedding, output)


@pytest.mark.parametrize("begins_with", [250, 251])
def test_a_pruned_vocabulary_is_read_by_its_rows(begins_with: int, tmp_path: Path, text: Path):
    """What begins a text has another row than its id, or none; the tied table holds all tokens."""
    kept = {row: 2 * row for row in range(100)} | {100: 250}
    model = tiny.write_meta(tmp_path / "m", tiny.float_tensors(tied=True), input_prune_map=kept)
    vocabulary = {"[other]": 0} | {str(word): word + 1 for word in range(200)}
    words = tokenizers.models.WordLevel(vocabulary | {"<s>": begins_with}, unk_token="[other]")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", begins_with)]
    )
    tokenizer.save(str(model / "tokenizer.json"))
    opened = open_float_model(model)
    begin, rows = rows_of_text(opened.config, Tokenizer.load(model / "tokenizer.json"), "1 7 8 190")
    assert (begin, rows) == ([100] if begins_with == 250 else [], [1, 4])
    report = quantize_model(model, tmp_path / "gptq", calibration=Calibration((text,)))
    quantize_model(model, tmp_path / "rtn", embedding="int4", method="rtn")
    tokens = torch.randint(len(kept), (8, 24), generator=torch.Generator().manual_seed(0))
    gptq, rtn = (error(opened, tmp_path / name, tokens) for name in ("gptq", "rtn"))
    assert gptq < rtn, (gptq, rtn)
    # Rows are no ids of tokens, of which logits are.
    assert report.against_floating_point is None
    assert (
        "was not measured: the model has no output layer, or a pruned vocabulary"
        in report.notes[-1]
    )


def test_a_model_that_states_no_first_token_writes_from_any(tmp_path: Path) -> None:
    model = tiny.write_meta(tmp_path / "m", bos_idx=None)
    assert len(Calibration(self_generated=1024).tokens(open_float_model(model), None, Stages()))


def test_progress_is_reported_linear_by_linear(tmp_path: Path, text: Path) -> None:
    """A layer may take minutes, and a table after its hidden states."""
    told: dict[str, list[float]] = {}
    stages = Stages(progress=lambda name, done, _: told.setdefault(name, []).append(done))
    model = ggufs.write_gguf(tmp_path / "m.gguf", tiny.float_tensors(tied=True))
    quantize_model(model, tmp_path / "out", stages=stages, calibration=Calibration((text,)))
    first, hidden, table = told["quantize embedding"]
    assert 2 * first == hidden < table == 1.0
    of_layers = [done for name, of in told.items() if "quantize layers" in name for done in of]
    assert of_layers == sorted(of_layers) and of_layers[-1] == 1.0
    assert len(set(of_layers)) == 14 and of_layers[0] < 0.2


def test_int4_of_the_file_is_kept_and_the_rest_made_up_for_it(tmp_path: Path) -> None:
    model = ggufs.write_gguf(tmp_path / "m.gguf", kind="Q4_0")
    quantize_model(model, tmp_path / "gptq", embedding="int8", calibration=OF_ITSELF)
    quantize_model(model, tmp_path / "rtn", embedding="int8", method="rtn")
    found, kept = (open_checkpoint(tmp_path / name).tensors for name in ("gptq", "rtn"))
    for name in kept:
        same = torch.equal(found[name], kept[name])
        assert same or not name.startswith("layers."), name


def test_the_same_request_gives_the_same_bytes(tmp_path: Path, text: Path) -> None:
    model, threads = ggufs.write_gguf(tmp_path / "m.gguf"), torch.get_num_threads()
    try:
        for count, name in ((1, "a"), (2, "b")):
            torch.set_num_threads(count)
            quantize_model(model, tmp_path / name, calibration=Calibration((text,)))
    finally:
        torch.set_num_threads(threads)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_every_second_text_calibrates_for_8da4w(tmp_path: Path) -> None:
    model = open_float_model(ggufs.write_gguf(tmp_path / "m.gguf"))
    plan = plan_model(model, 32, "keep", "keep", "gptq")
    tokens = torch.randint(272, (16, 64))
    wq = next(tensor for tensor in plan.tensors if tensor.target.endswith("1.attention.wq.weight"))
    made = {}
    for scheme in (None, Scheme.DYNAMIC_INT8, Scheme.WEIGHT_ONLY):
        made[scheme] = Gptq(plan, tokens, scheme)(model, wq).tensors[0]
    assert not torch.equal(made[None], made[Scheme.DYNAMIC_INT8])
    assert not torch.equal(made[None], made[Scheme.WEIGHT_ONLY])


def test_experts_that_see_too_little_are_said(tmp_path: Path) -> None:
    folder = saved(model_of(ROWS["llama4"]), tmp_path / "m")
    model = open_float_model(folder)
    plan = plan_model(model, 32, "keep", "keep", "gptq")
    gptq = Gptq(plan, torch.randint(90, (1, 64)), Scheme.WEIGHT_ONLY)
    for tensor in plan.tensors:
        if tensor.method == "gptq":
            gptq(model, tensor)
    assert "24 linears of experts" in gptq.notes()[1]


def test_pieces_are_spread_over_a_long_text(tmp_path: Path, monkeypatch) -> None:
    model = open_float_model(ggufs.write_gguf(tmp_path / "m.gguf"))
    monkeypatch.setattr("quatrain.quantize.calibration.MOST_TOKENS", 1024)
    text = tmp_path / "long.txt"
    text.write_text("a" * 4096 + "b" * 4096)
    tokens = tokens_of_files(model, [text])
    assert tokens.shape == (1024 // LENGTH, LENGTH)
    assert not torch.equal(tokens[0], tokens[-1])


def test_a_context_without_room_behind_the_first_token_is_refused(tmp_path: Path) -> None:
    model = open_float_model(ggufs.write_gguf(tmp_path / "m.gguf"))
    words = model.tokenizer()
    assert words is not None
    begin = len(words.encode(""))
    config = replace(model.config, max_seq_len=begin)
    with pytest.raises(
        InputError, match=f"puts {begin} tokens before a text.* context has only {begin} tokens"
    ):
        rows_of_text(config, words, "a" * 4096)


REFUSED = {
    "too short": (
        ["--calibration", "short.txt"],
        "short.txt: has 3 tokens, expected at least 1024",
    ),
    "not text": (["--calibration", "bytes"], "--calibration bytes: cannot be read as text"),
    "nothing there": (["--calibration", "none"], "--calibration none: cannot be read as text"),
    "too few": (["--self-generated", "5"], "--self-generated 5: expected at least 1024 tokens"),
    "both": (["--calibration", "short.txt", "--self-generated", "2048"], "exclude each other"),
    "for nearest": (
        ["--method", "rtn", "--for", "8da4w"],
        "--method rtn does not use a calibration text",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_calibrated_with_is_refused(name, tmp_path: Path, monkeypatch) -> None:
    options, message = REFUSED[name]
    ggufs.write_gguf(tmp_path / "m.gguf")
    (tmp_path / "short.txt").write_text("abc")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    monkeypatch.chdir(tmp_path)
    before = sorted(file.name for file in tmp_path.iterdir())
    with pytest.raises(InputError) as refused:
        run(monkeypatch, "m.gguf", "-o", "out", *options)
    assert message in str(refused.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == before


def test_a_model_without_a_tokenizer_writes_its_text_itself(tmp_path: Path) -> None:
    model = tiny.write_hugging_face(tmp_path / "m")
    note = "It was calibrated on 8192 tokens that the model generated itself."
    assert quantize_model(model, tmp_path / "out").notes[0] == note
    unknown = ggufs.write_gguf(tmp_path / "m.gguf", tokenizer="of-no-known-kind")
    assert note in quantize_model(unknown, tmp_path / "again").notes
    with pytest.raises(
        InputError,
        match=r"has no tokenizer, which the calibration text needs; use --self-generated 8192",
    ):
        quantize_model(model, tmp_path / "out", calibration=Calibration(scheme=Scheme.WEIGHT_ONLY))


def test_a_model_that_reads_no_text_is_rounded_to_nearest(tmp_path: Path) -> None:
    model = tiny.write_meta(tmp_path / "m", apply_embedding=False)
    assert "rounded to nearest" in quantize_model(model, tmp_path / "out").notes[-1]
    quantize_model(model, tmp_path / "rtn", method="rtn")
    for name in ("model.safetensors", "params.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "rtn" / name).read_bytes()
    with pytest.raises(InputError, match="use --method rtn"):
        quantize_model(model, tmp_path / "out", method="gptq")


def test_a_model_that_overflows_is_named(tmp_path: Path) -> None:
    tensors = tiny.float_tensors()
    tensors["layers.1.feed_forward.w1.weight"] *= 1e30
    model = tiny.write_meta(tmp_path / "m", tensors)
    with pytest.raises(
        InputError, match=r"layers\.1\.feed_forward\.w2 receives inputs that are not finite"
    ):
        quantize_model(model, tmp_path / "out", calibration=OF_ITSELF)
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_a_model_too_large_for_this_machine_is_refused(
    tmp_path: Path, monkeypatch, text: Path
) -> None:
    model = ggufs.write_gguf(tmp_path / "m.gguf")
    sizes = {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr("quatrain.stages.os.sysconf", sizes.__getitem__)
    for calibration, why in (
        (Calibration((text,)), "for its layers"),
        (OF_ITSELF, r"to write its own .* --calibration, which needs one layer at a time"),
    ):
        with pytest.raises(InputError, match=rf"GB of memory {why}.* use --method rtn"):
            quantize_model(model, tmp_path / "out", calibration=calibration)
    assert {file.name for file in tmp_path.iterdir()} == {"m.gguf", text.name}


def run(monkeypatch, *arguments) -> None:
    app = typer.Typer()
    app.command()(quantize)
    monkeypatch.setattr(sys, "argv", ["quantize", *map(str, arguments)])
    app(standalone_mode=False)


def test_the_command_rounds_so_by_default(tmp_path: Path, monkeypatch, capsys, text: Path) -> None:
    model = ggufs.write_gguf(tmp_path / "m.gguf")
    run(monkeypatch, model, "-o", tmp_path / "a", "--calibration", text, "--json")
    said = json.loads(capsys.readouterr().out)
    assert said["notes"] == ["It was calibrated on 7680 tokens."]
    quantize_model(model, tmp_path / "b", calibration=Calibration((text,)))
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name
