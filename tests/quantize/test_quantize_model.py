"""Whole models to checkpoints: what is written, what it reports, and what it refuses."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import tokenizers
import torch
import typer
from safetensors.torch import load_file
from tests.support.command_line import invoked
from tests.support.formats import gguf_files as ggufs
from tests.support.formats.tokenizer_files import EMPTY_TOKENIZER
from tests.support.models import tiny_models as tiny
from tests.support.models.knobs import TINY, Peer, write_meta_folder

from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.commands.printing.checkpoint import print_programs_and_next
from quatrain.commands.quantize import quantize
from quatrain.errors import InputError
from quatrain.export.plan.programs import ProgramPlan
from quatrain.quantize.methods.round_to_nearest import quantize_channels, quantize_groups
from quatrain.quantize.pipeline import quantize_model
from quatrain.stages import Stages
from quatrain.tokenizer import Tokenizer

WQ = "layers.0.attention.wq"


def write_model(folder, form, **options):
    if form == "gguf":
        folder.mkdir(exist_ok=True)
        return ggufs.write_gguf(folder / "m.gguf", **options)
    return {"hf": tiny.write_hugging_face, "meta": tiny.write_meta}[form](folder, **options)


@pytest.mark.parametrize("kind", ["gguf", "hf", "meta"])
@pytest.mark.parametrize("embedding", ["int8", "int4", "fp"])
@pytest.mark.parametrize("output_layer", ["int4", "int8"])
def test_what_is_written(tmp_path, kind, embedding, output_layer):
    model = write_model(tmp_path / "m", kind)
    report = quantize_model(model, tmp_path / "out", 32, embedding, output_layer, method="rtn")
    checkpoint = open_checkpoint(tmp_path / "out")
    checkpoint.check_values()
    assert (checkpoint.embedding_kind, checkpoint.output_kind) == (embedding, output_layer)
    assert checkpoint.group_size == 32
    assert checkpoint.config.use_hf_rope == (kind == "hf")
    assert len(checkpoint.tensors) == report.tensors
    weights = tiny.float_tensors()
    for name, method in ((WQ, "int4"), ("tok_embeddings", embedding), ("output", output_layer)):
        weight = weights[f"{name}.weight"]
        if method == "fp":
            assert torch.equal(checkpoint.tensors[f"{name}.weight"], weight)
            continue
        wanted = quantize_channels(weight) if method == "int8" else quantize_groups(weight, 32)
        assert torch.equal(checkpoint.tensors[f"{name}.weight"], wanted[0])
        assert torch.equal(checkpoint.tensors[f"{name}.scales"], wanted[1])
    assert torch.equal(checkpoint.tensors["norm.weight"], weights["norm.weight"])


@pytest.mark.parametrize("knobs", [{}, {"output_linear_intermediate_dim": 32}])
@pytest.mark.parametrize("output_layer", ["int4", "int8"])
def test_output_rows_of_one_group_are_told_from_channels(tmp_path, knobs, output_layer):
    """Also where it reads fewer channels than the stream has."""
    fields = {"n_layers": 1, "hidden_dim": 64, **knobs}
    model = write_meta_folder(tmp_path / "m", fields, Peer(fields).state)
    size = knobs.get("output_linear_intermediate_dim", TINY["dim"])
    quantize_model(
        model, tmp_path / "out", size, "fp", output_layer, method="rtn", backend="vulkan"
    )
    checkpoint = open_checkpoint(tmp_path / "out")
    checkpoint.check_values()
    assert checkpoint.output_kind == output_layer


def test_the_file_is_one_that_safetensors_reads(tmp_path):
    quantize_model(write_model(tmp_path / "m", "hf"), tmp_path / "out", method="rtn")
    loaded = load_file(tmp_path / "out" / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path / "out")
    assert set(loaded) == set(checkpoint.tensors)
    assert all(torch.equal(loaded[name], checkpoint.tensors[name]) for name in loaded)
    params = json.loads((tmp_path / "out" / "params.json").read_text())
    assert params["quantization_args"] == {
        "scheme": "8da4w",
        "group_size": 32,
        "embedding": "int8",
        "output": "int4",
    }
    assert params["eos_idx"] == [2, 0]


def test_a_tied_output_gets_integers_of_its_own(tmp_path):
    model = write_model(tmp_path / "m", "gguf", tensors=tiny.float_tensors(tied=True))
    quantize_model(model, tmp_path / "out", method="rtn")
    tensors = open_checkpoint(tmp_path / "out").tensors
    table = tiny.float_tensors()["tok_embeddings.weight"]
    assert torch.equal(tensors["output.weight"], quantize_groups(table, 32)[0])


def test_bias_and_qk_norm_stay_in_floating_point(tmp_path):
    tensors = tiny.float_tensors(attention_qkv_bias=True, use_qk_norm=True)
    fields = {"model_type": "qwen3", "head_dim": 16, "attention_bias": True}
    model = write_model(tmp_path / "m", "hf", tensors=tensors, **fields)
    quantize_model(model, tmp_path / "out", method="rtn")
    written = open_checkpoint(tmp_path / "out").tensors
    for name in (f"{WQ}.bias", "layers.1.attention.k_norm_fn.weight"):
        assert torch.equal(written[name], tensors[name])


def test_the_same_model_gives_the_same_bytes(tmp_path):
    model = write_model(tmp_path / "m", "gguf")
    for name in "ab":
        quantize_model(model, tmp_path / name, method="rtn")
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    assert len(list((tmp_path / "a").iterdir())) == 4


def test_the_tokenizer_travels_along(tmp_path):
    quantize_model(write_model(tmp_path / "m", "gguf"), tmp_path / "out", method="rtn")
    files = open_checkpoint(tmp_path / "out").tokenizer_files
    assert [file.name for file in files] == ["tokenizer.json", "tokenizer_config.json"]
    tokenizer = Tokenizer.load(files[0])
    assert tokenizer.decode(tokenizer.encode("hello 123")) == "hello 123"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"eos_token_id": 9000}, "eos_token_id is 9000, but .* ids end at 271"),
        ({"eos_token_id": [9000, 9001]}, "eos_token_id is 9000, 9001"),
        ({"eos_token_id": [1, 9000]}, None),
        ({"eos_token_id": None}, "No file has a token that ends a text"),
        ({"bos_token_id": 9000}, "bos_token_id is 9000, .*beyond the embedding"),
    ],
)
def test_an_end_or_begin_that_the_model_does_not_know_is_said(tmp_path, fields, said):
    model = tiny.write_hugging_face(tmp_path / "m", **fields)
    (model / "tokenizer.json").write_text(EMPTY_TOKENIZER)
    report = quantize_model(model, tmp_path / "out", method="rtn")
    notes = [note for note in report.notes if " a text" in note or "cut off" in note]
    assert len(notes) == bool(said) and all(re.search(str(said), note) for note in notes)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"lstrip": True, "normalized": False}, "White space beside <x> and 1 more belongs to"),
        (
            {"normalized": True},
            'This tokenizer looks for <x> and 1 more after .* "normalized": false',
        ),
        ({"normalized": False}, None),
    ],
)
def test_tokens_that_a_phone_finds_otherwise_are_said(tmp_path, flags, said):
    model = tiny.write_hugging_face(tmp_path / "m")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.normalizer = tokenizers.normalizers.Prepend("▁")
    tokenizer.add_tokens([tokenizers.AddedToken(text, **flags) for text in ("<x>", "<y>")])
    tokenizer.save(str(model / "tokenizer.json"))
    report = quantize_model(model, tmp_path / "out", method="rtn")
    assert any("drops all of the text" in note for note in report.notes)  # it has no tokens of any
    notes = [note for note in report.notes if "<x>" in note]
    assert len(notes) == bool(said) and all(re.match(str(said), note) for note in notes)


def test_q4_0_is_kept(tmp_path):
    rng = np.random.default_rng(0)
    positive = rng.integers(-8, 8, (64, 64)), np.abs(rng.normal(size=(64, 2))).astype(np.float16)
    mixed = rng.integers(-8, 8, (96, 64)), rng.normal(size=(96, 2)).astype(np.float16)
    w1 = "layers.0.feed_forward.w1"
    raw = {f"{WQ}.weight": ggufs.q4_0_bytes(*positive), f"{w1}.weight": ggufs.q4_0_bytes(*mixed)}
    report = quantize_model(
        write_model(tmp_path / "m", "gguf", raw=raw), tmp_path / "out", method="rtn"
    )
    tensors = open_checkpoint(tmp_path / "out").tensors
    assert np.array_equal(tensors[f"{WQ}.weight"].numpy(), positive[0])
    assert np.array_equal(tensors[f"{WQ}.scales"].numpy(), positive[1].astype(np.float32))
    values, scales = tensors[f"{w1}.weight"].numpy(), tensors[f"{w1}.scales"].numpy()
    assert np.array_equal(
        values.reshape(96, 2, 32) * scales[..., None],
        mixed[0].reshape(96, 2, 32) * mixed[1].astype(np.float32)[..., None],
    )
    assert report.exact_groups == 64 * 2 + 96 * 2
    negative = (mixed[1] < 0) & (mixed[0].reshape(96, 2, 32) == -8).any(-1)
    assert report.negative_scales == int(negative.sum())


@pytest.mark.parametrize(("kind", "group"), [("Q3_K", 16), ("Q4_0", 32)])
def test_int4_is_kept_in_groups_of_16_for_vulkan(tmp_path, kind, group):
    """As the gguf package reads it; in wider groups it is requantized, with a note."""
    w2, wanted = "layers.0.feed_forward.w2", gguf.GGMLQuantizationType[kind]
    block, block_bytes = gguf.GGML_QUANT_SIZES[wanted]
    packed = np.random.default_rng(0).integers(0, 40, (64, 256 // block * block_bytes), np.uint8)
    source = ggufs.write_gguf(
        tmp_path / "m.gguf",
        tiny.float_tensors(hidden_dim=256),
        raw={f"{w2}.weight": packed},
        raw_kind=kind,
    )
    report = quantize_model(source, tmp_path / "out", 16, method="rtn", backend="vulkan")
    found = open_checkpoint(tmp_path / "out").tensors
    values, scales = found[f"{w2}.weight"], found[f"{w2}.scales"]
    weights = (values.unflatten(1, (16, 16)) * scales[..., None]).flatten(1)
    assert np.array_equal(weights.numpy(), gguf.quants.dequantize(packed, wanted))
    assert report.exact_groups == 64 * 16
    requantized = (
        f"int4 values in groups of {group} were requantized into larger groups; they are kept with "
        f"--group-size {group}"
    )
    assert not any("were requantized" in note for note in report.notes)
    notes = quantize_model(source, tmp_path / "wide", 64, method="rtn").notes
    assert any(requantized in note and ("vulkan" in note) == (group == 16) for note in notes)


def test_what_is_kept_counts_among_the_weights(tmp_path):
    """The error of the layers is relative to all of their weights, Q4_0's own too."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(-8, 8, (64, 64)), rng.normal(size=(64, 2)).astype(np.float16)
    raw = {f"{WQ}.weight": ggufs.q4_0_bytes(*blocks)}
    model = write_model(tmp_path / "m", "gguf", raw=raw)
    report = quantize_model(model, tmp_path / "out", method="rtn")
    source, written = open_float_model(model).tensors, open_checkpoint(tmp_path / "out").tensors
    error = total = 0.0
    for name in [name for name in written if name.startswith("layers") and "scales" in name]:
        weight, scales = name.replace("scales", "weight"), written[name]
        values = written[weight].view(*scales.shape, 32) * scales[..., None]
        error += float((source[weight] - values.flatten(1)).square().sum())
        total += float(source[weight].square().sum())
    assert report.relative_rms_error_by_part["layers"] == pytest.approx(
        (error / total) ** 0.5, rel=1e-5
    )


def test_the_report(tmp_path):
    model = write_model(tmp_path / "m", "gguf", kind="F16")
    report = quantize_model(model, tmp_path / "out", stages=Stages(), method="rtn")
    assert report.bytes_in == model.stat().st_size
    assert report.bytes_out == sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    assert set(report.relative_rms_error_by_part) == {"embedding", "layers", "output"}
    assert 0.001 < report.relative_rms_error_by_part["embedding"] < 0.02
    assert 0.05 < report.relative_rms_error_by_part["layers"] < 0.1
    assert report.seconds and report.peak_rss_bytes > 0
    assert report.exact_groups == report.negative_scales == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 48}, "group size 48 is not supported, expected one of 32, 64, 128, 256"),
        (
            {"group_size": 64},
            r"w2\.weight has 96 input features.*divide it: 16 with --backend vulkan, 32$",
        ),
    ],
)
def test_a_group_size_that_does_not_fit(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        quantize_model(write_model(tmp_path / "m", "hf"), tmp_path / "out", **options, method="rtn")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [f"{WQ}.weight", "tok_embeddings.weight", "norm.weight"])
def test_a_weight_that_is_not_finite_is_named_and_nothing_is_left(tmp_path, name):
    tensors = tiny.float_tensors()
    tensors[name].view(-1)[17] = float("nan")
    model = write_model(tmp_path / "m", "meta", tensors=tensors)
    with pytest.raises(InputError, match=rf"{name} holds a NaN"):
        quantize_model(model, tmp_path / "out", method="rtn")
    assert [file.name for file in tmp_path.iterdir()] == ["m"]


def test_a_file_whose_end_was_never_written(tmp_path):
    """As a download leaves one that was given its whole length first: what is missing is 0."""
    tensors = tiny.float_tensors()
    tensors["norm.weight"].zero_()
    model = write_model(tmp_path / "m", "hf", tensors=tensors)
    with pytest.raises(InputError, match=r"norm\.weight holds only zeros, .*download it again"):
        quantize_model(model, tmp_path / "out", method="rtn")


def test_a_file_of_which_a_part_was_never_written(tmp_path):
    """A model may be made so: layers that are put in between may begin with matrices of 0."""
    tensors = tiny.float_tensors()
    tensors["layers.1.attention.wv.weight"].zero_()
    model = write_model(tmp_path / "m", "hf", tensors=tensors)
    report = quantize_model(model, tmp_path / "out", method="rtn")
    assert report.notes[-1].startswith("layers.1.attention.wv.weight: all weights are 0")


@pytest.mark.parametrize("method", ["rtn", "gptq"])
def test_rows_that_were_never_written(tmp_path, method):
    """Fewer than a matrix; a table has such rows where it was made longer."""
    tensors = tiny.float_tensors()
    for name in ("layers.1.attention.wv.weight", "tok_embeddings.weight"):
        tensors[name][-3:] = 0
    model = write_model(tmp_path / "m", "hf", tensors=tensors)
    notes = quantize_model(model, tmp_path / "out", method=method).notes
    assert [note.partition(",")[0] for note in notes if "partly written" in note] == [
        "3 of 32 rows of layers.1.attention.wv.weight: all weights of these rows are 0"
    ]


def test_rows_of_a_table_that_were_never_written(tmp_path):
    """Between others: a few may be tokens that are kept free, and a table may be longer than the
    vocabulary."""
    tensors = tiny.float_tensors()
    tensors["tok_embeddings.weight"][3] = tensors["tok_embeddings.weight"][90:260] = 0
    for rows in (slice(40, 103), slice(200, None)):
        tensors["output.weight"][rows] = 0
    model = write_model(tmp_path / "m", "hf", tensors=tensors)
    notes = quantize_model(model, tmp_path / "out", method="rtn").notes
    assert [note.partition(":")[0] for note in notes if "partly written" in note] == [
        "170 of 272 rows of tok_embeddings.weight"
    ]


def test_an_existing_checkpoint_survives_a_failure(tmp_path):
    quantize_model(write_model(tmp_path / "m", "hf"), tmp_path / "out", method="rtn")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    tensors = tiny.float_tensors()
    tensors["norm.weight"][0] = float("inf")
    with pytest.raises(InputError):
        quantize_model(
            write_model(tmp_path / "n", "hf", tensors=tensors), tmp_path / "out", method="rtn"
        )
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}


def test_threads_are_given_back(tmp_path):
    before = torch.get_num_threads()
    quantize_model(write_model(tmp_path / "m", "hf"), tmp_path / "out", method="rtn")
    assert torch.get_num_threads() == before


def run(monkeypatch, *arguments):
    app = typer.Typer()
    app.command()(quantize)
    monkeypatch.setattr(sys, "argv", ["quantize", *map(str, arguments), "--method", "rtn"])
    app(standalone_mode=False)


def test_command(tmp_path, monkeypatch, capsys):
    model = write_model(tmp_path / "m", "gguf", kind="Q4_0")
    run(monkeypatch, model, "-o", tmp_path / "out", "--json")
    said = json.loads(capsys.readouterr().out)
    assert said["tensors"] == len(open_checkpoint(tmp_path / "out").tensors)
    assert said["exact_groups"] > 0
    run(monkeypatch, model, "-o", tmp_path / "out")
    captured = capsys.readouterr()
    assert "relative RMS error" in captured.out and "kept exactly" in captured.out
    assert "export for XNNPACK rounds those again" in captured.out
    assert "quantize layers" in captured.err


def test_command_takes_the_default_model_by_name(tmp_path, monkeypatch, capsys):
    model = write_model(tmp_path / "m", "hf")
    monkeypatch.setattr("quatrain.smollm2.fetch_smollm2", lambda: model)
    run(monkeypatch, "smollm2", "-o", tmp_path / "out")
    assert "tokenizer none" in capsys.readouterr().out


REFUSED = ProgramPlan("vulkan", "8da4w", "fp32", 64, refused="no kernel")
WEIGHT_ONLY = ProgramPlan("vulkan", "weight-only", "fp32", 64)
CPU = ProgramPlan("xnnpack", "8da4w", "fp32", 64)


@pytest.mark.parametrize(
    ("programs", "next_line"),
    [
        ([replace(REFUSED, refused=None), WEIGHT_ONLY, CPU], "export m -o m.pte"),
        ([REFUSED, WEIGHT_ONLY, CPU], "export m -o m.pte --weight-only-linear"),
        ([REFUSED, CPU], "export m -o m.pte --backend xnnpack"),
        ([REFUSED], ""),
    ],
)
def test_what_comes_next_is_not_what_is_refused(capsys, programs, next_line):
    print_programs_and_next(Path("m"), programs)
    _, _, said = capsys.readouterr().out.partition("next: quatrain ")
    assert said == (next_line and f"{next_line}\n")


def test_a_checkpoint_for_the_cpu_alone_goes_on_to_its_program(tmp_path):
    model = write_model(tmp_path / "m", "hf")
    words = ("quantize", model, "-o", tmp_path / "out", "--method", "rtn", "--output-layer", "int8")
    assert "-o out.pte --backend xnnpack\n" in invoked(words).stdout
