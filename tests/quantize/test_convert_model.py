"""`convert_model`: every source in one layout, exactly; its options, its manifest."""

import hashlib
import json
from functools import partial

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.command_line import invoked
from tests.support.formats import gguf_files as ggufs
from tests.support.formats import quantized_folders as folders
from tests.support.formats.tokenizer_files import EMPTY_TOKENIZER
from tests.support.models import tiny_models as tiny

from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import InputError
from quatrain.quantize.convert_options import ConvertOptions
from quatrain.quantize.methods.round_to_nearest import quantize_channels, quantize_groups
from quatrain.quantize.pipeline import convert_model, quantize_model

WQ = "layers.0.attention.wq"
WRITERS = pytest.mark.parametrize(
    "write",
    [convert_model, partial(quantize_model, method="rtn")],
    ids=["convert_model", "quantize_model"],
)


def sources(folder):
    """name -> a source that is quantized already."""
    return {
        "layout": tiny.write_checkpoint(folder / "layout"),
        "pth": tiny.write_checkpoint(folder / "pth", file="m.pth") / "m.pth",
        "gptq": folders.write_quantized(folder / "gptq", "gptq", shards=2),
        "awq": folders.write_quantized(folder / "awq", "awq"),
        "compressed": folders.write_quantized(folder / "ct", "compressed-tensors"),
        "torchao": folders.write_torchao(folder / "torchao")[0],
        "pickled": folders.write_torchao(folder / "pickled", pickled=True)[0],
    }


def test_quantized_sources_keep_every_bit(tmp_path):
    for name, source in sources(tmp_path).items():
        output = tmp_path / f"{name}-out"
        report = convert_model(source, output)
        assert report.rounded == 0
        before, after = open_checkpoint(source), open_checkpoint(output)
        after.check_values()
        written = load_file(output / "model.safetensors")
        assert set(written) == {key for key in before.tensors if not key.endswith(".zeros")}
        for key, tensor in written.items():
            assert (
                torch.equal(tensor, before.tensors[key])
                and tensor.dtype == before.tensors[key].dtype
            )
        assert after.config == before.config
        assert (after.embedding_kind, after.output_kind) == (
            before.embedding_kind,
            before.output_kind,
        )
        assert not list(tmp_path.glob(".*"))


def test_float_sources_are_what_quantize_writes(tmp_path):
    for name, source in {
        "gguf": ggufs.write_gguf(tmp_path / "m.gguf", kind="Q8_0"),
        "hf": tiny.write_hugging_face(tmp_path / "hf", shards=2),
        "meta": tiny.write_meta(tmp_path / "meta"),
    }.items():
        quantize_model(source, tmp_path / f"{name}-quantized", method="rtn")
        report = convert_model(source, tmp_path / f"{name}-converted")
        assert report.rounded == 16 and 0 < report.relative_rms_error < 0.2
        for file in ("model.safetensors", "params.json"):
            written = (tmp_path / f"{name}-converted" / file).read_bytes()
            assert written == (tmp_path / f"{name}-quantized" / file).read_bytes()


def test_the_result_loads_into_torchao(tmp_path):
    from torchao.quantization.linear_quant_modules import Int8DynActInt4WeightLinear

    convert_model(folders.write_quantized(tmp_path / "in", "gptq"), tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    linear = Int8DynActInt4WeightLinear(64, 64, bias=False, groupsize=32)
    state = {part: tensors[f"{WQ}.{part}"] for part in ("weight", "scales")}
    linear.load_state_dict(state | {"zeros": torch.zeros(64, 2)})
    assert linear(torch.ones(1, 64)).isfinite().all()


def test_manifest(tmp_path):
    source = folders.write_quantized(tmp_path / "in", "awq", shards=2)
    for name in ("tokenizer_config.json", "generation_config.json"):
        (source / name).write_text("{}")
    (source / "tokenizer.json").write_text(EMPTY_TOKENIZER)
    (source / "chat_template.jinja").write_text("{{ messages }}")
    convert_model(source, tmp_path / "a")
    convert_model(source, tmp_path / "b")
    manifest = (tmp_path / "a" / "quatrain_manifest.json").read_text()
    assert manifest == (tmp_path / "b" / "quatrain_manifest.json").read_text()
    said = json.loads(manifest)
    assert [file["name"] for file in said["source"]] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ]
    for file in said["source"]:
        content = (source / file["name"]).read_bytes()
        assert file["sha256"] == hashlib.sha256(content).hexdigest()
        assert file["bytes"] == len(content)
    written = (tmp_path / "a" / "model.safetensors").read_bytes()
    assert said["output"]["sha256"] == hashlib.sha256(written).hexdigest()
    assert said["output"]["bytes"] == len(written)
    assert (tmp_path / "a" / "tokenizer.json").read_text() == EMPTY_TOKENIZER


def test_the_manifest_names_what_lies_beside_a_file(tmp_path):
    source = tiny.write_checkpoint(tmp_path / "in", file="m.pth")
    (source / "tokenizer.json").write_text(EMPTY_TOKENIZER)
    convert_model(source / "m.pth", tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "quatrain_manifest.json").read_text())
    names = [file["name"] for file in manifest["source"]]
    assert names == ["m.pth", "params.json", "tokenizer.json"]
    assert manifest["options"]["group_size"] == 32


def test_the_manifest_names_no_index_that_is_not_read(tmp_path):
    source = tiny.write_hugging_face(tmp_path / "in")
    (source / "model.safetensors.index.json").write_text("{}")
    convert_model(source, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "quatrain_manifest.json").read_text())
    assert [file["name"] for file in manifest["source"]] == ["model.safetensors", "config.json"]


def test_options_that_could_not_be_followed_are_refused(tmp_path):
    quantized = folders.write_quantized(tmp_path / "in", "gptq")
    with pytest.raises(InputError, match=r"--group-size 64: .* already quantized, in groups of 32"):
        convert_model(quantized, tmp_path / "out", ConvertOptions(group_size=64))
    convert_model(quantized, tmp_path / "out", ConvertOptions(group_size=32))
    model = tiny.write_meta(tmp_path / "meta")
    with pytest.raises(InputError, match=r"--params .*is in floating point"):
        convert_model(model, tmp_path / "other", params=model / "params.json")
    with pytest.raises(InputError, match=r"--requantize-asymmetric: .* is in floating point"):
        convert_model(model, tmp_path / "other", ConvertOptions(requantize_asymmetric=True))
    with pytest.raises(InputError, match="give the folder"):
        convert_model(model / "consolidated.00.pth", tmp_path / "other")
    safetensors = tiny.write_hugging_face(tmp_path / "hf") / "model.safetensors"
    with pytest.raises(InputError, match="give the folder"):
        convert_model(safetensors, tmp_path / "other")
    with pytest.raises(InputError, match="group size 0 is not supported"):
        convert_model(model, tmp_path / "other", ConvertOptions(group_size=0))
    assert not (tmp_path / "other").exists()


@WRITERS
def test_a_damaged_tokenizer_shows_before_the_work(tmp_path, monkeypatch, write):
    source = tiny.write_hugging_face(tmp_path / "in")
    (source / "tokenizer.json").write_text("{}")
    monkeypatch.setattr(
        "quatrain.quantize.output.writer.quantize_tensor",
        lambda *_: pytest.fail("a tensor was made"),
    )
    with pytest.raises(InputError, match="tokenizer"):
        write(source, tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("pre", ["of-no-known-kind", None])
@WRITERS
def test_weights_convert_without_a_tokenizer_that_is_not_read(tmp_path, write, pre):
    """And it is said, or another one is given."""
    source = ggufs.write_gguf(tmp_path / "m.gguf", tokenizer=pre)
    report = write(source, tmp_path / "out")
    assert report.tokenizer_files == [] and "as --tokenizer" in report.notes[-1]
    given = tmp_path / "tokenizer.json"
    given.write_text(EMPTY_TOKENIZER)
    report = write(source, tmp_path / "out", tokenizer=given)
    assert report.tokenizer_files == ["tokenizer.json", "tokenizer_config.json"]
    of_the_tokenizer = (
        "No file has a token that ends a text",
        "This tokenizer has tokens only for",
    )
    assert all(note.startswith(of_the_tokenizer) for note in report.notes)
    assert (tmp_path / "out" / "tokenizer.json").read_text() == EMPTY_TOKENIZER


def test_a_part_of_a_split_gguf(tmp_path):
    """All metadata of the model are in the first."""
    with ggufs.gguf_file(tmp_path / "m-00002-of-00003.gguf") as writer:
        for key, value in {"split.no": 1, "split.count": 3}.items():
            writer.add_uint16(key, value)
        writer.add_tensor("blk.1.attn_norm.weight", torch.ones(64).numpy())
    with pytest.raises(InputError, match=r"m-00001-of-00003\.gguf is not beside it"):
        convert_model(tmp_path / "m-00002-of-00003.gguf", tmp_path / "out")


def test_tables_are_rounded_where_asked(tmp_path):
    source = folders.write_quantized(tmp_path / "in", "gptq")
    options = ConvertOptions(embedding="int8", output_layer="int4")
    report = convert_model(source, tmp_path / "out", options)
    assert report.rounded == 2
    checkpoint = open_checkpoint(tmp_path / "out")
    checkpoint.check_values()
    assert (checkpoint.embedding_kind, checkpoint.output_kind) == ("int8", "int4")
    with pytest.raises(InputError, match=r"output\.weight is already int4"):
        convert_model(tmp_path / "out", tmp_path / "again", ConvertOptions(output_layer="int8"))


def tied(folder):
    """`folder`, which holds an output layer of its own, without that."""
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("lm_head.weight", None)
    tensors.pop("output.weight", None)
    tensors.pop("output.scales", None)
    save_file(tensors, folder / "model.safetensors")
    config = folder / "config.json"
    if config.is_file():
        said = json.loads(config.read_text()) | {"tie_word_embeddings": True}
        config.write_text(json.dumps(said))
    return folder


@pytest.mark.parametrize("method", ["int4", "int8"])
def test_a_tied_output_is_rounded_from_the_embedding(tmp_path, method):
    source = tied(folders.write_quantized(tmp_path / "in", "gptq"))
    assert convert_model(source, tmp_path / "kept").rounded == 0
    assert open_checkpoint(tmp_path / "kept").output_kind == "tied"
    options = ConvertOptions(embedding="int8", output_layer=method)
    assert convert_model(source, tmp_path / "out", options).rounded == 2
    checkpoint = open_checkpoint(tmp_path / "out")
    checkpoint.check_values()
    assert (checkpoint.embedding_kind, checkpoint.output_kind) == ("int8", method)
    table = open_checkpoint(source).tensors["tok_embeddings.weight"]
    wanted = quantize_groups(table, 32) if method == "int4" else quantize_channels(table)
    for part, expected in zip(("weight", "scales"), wanted, strict=True):
        assert torch.equal(checkpoint.tensors[f"output.{part}"], expected)


def test_a_tied_output_is_not_rounded_from_int4(tmp_path):
    tensors = tiny.int4_tensors(embedding="int4", output="tied")
    source = tiny.write_checkpoint(tmp_path / "in", tensors)
    with pytest.raises(
        InputError, match=r"output layer is tied to the embedding, which is already int4"
    ):
        convert_model(source, tmp_path / "out", ConvertOptions(output_layer="int8"))
    assert not (tmp_path / "out").exists()
    assert convert_model(source, tmp_path / "out").rounded == 0


@pytest.mark.parametrize("output", ["int8", "tied"])
@pytest.mark.parametrize("groups", [None, 1, 2])
def test_int8_tables_are_rounded_to_int4_where_asked(tmp_path, output, groups):
    """As Meta's releases have them: Vulkan has no kernel for an int8 output layer."""
    tensors = tiny.int4_tensors(output=output)
    scales = tensors["tok_embeddings.scales"]
    if groups:  # per row as [V, 1], or in groups, as Meta's
        scales = scales[:, None] * torch.arange(1, groups + 1)
        tensors["tok_embeddings.scales"] = scales
    source = tiny.write_checkpoint(tmp_path / "in", tensors)
    options = ConvertOptions(embedding="int4", output_layer="int4")
    assert convert_model(source, tmp_path / "out", options).rounded == 2
    checkpoint = open_checkpoint(tmp_path / "out")
    checkpoint.check_values()
    assert checkpoint.table_kinds == {"tok_embeddings": "int4", "output": "int4"}
    for part in ("tok_embeddings", "output"):
        stored = part if f"{part}.weight" in tensors else "tok_embeddings"
        scale = tensors[f"{stored}.scales"].reshape(len(scales), -1)
        in_groups = tensors[f"{stored}.weight"].view(*scale.shape, -1)
        values, scales_of = quantize_groups((in_groups * scale[..., None]).flatten(1), 32)
        assert torch.equal(checkpoint.tensors[f"{part}.weight"], values)
        assert torch.equal(checkpoint.tensors[f"{part}.scales"], scales_of)


def test_asymmetric(tmp_path):
    zeros = {WQ: torch.ones(64, 2)}
    source = folders.write_quantized(tmp_path / "in", "awq", zeros=zeros)
    with pytest.raises(InputError, match=r"zeros.*requantize-asymmetric"):
        convert_model(source, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))
    report = convert_model(source, tmp_path / "out", ConvertOptions(requantize_asymmetric=True))
    assert report.rounded == 1 and 0 < report.relative_rms_error < 0.2
    manifest = json.loads((tmp_path / "out" / "quatrain_manifest.json").read_text())
    assert manifest["rounded"]["tensors"] == 1
    open_checkpoint(tmp_path / "out").check_values()
    even = folders.write_quantized(tmp_path / "even", "awq")
    report = convert_model(even, tmp_path / "same", ConvertOptions(requantize_asymmetric=True))
    assert "nothing in the source is asymmetric" in report.notes[0]


def test_command(tmp_path):
    source = folders.write_quantized(tmp_path / "in", "gptq")
    arguments = ["convert", str(source), str(tmp_path / "out"), "--output-layer", "int4", "--json"]
    done = invoked(arguments)
    assert done.exit_code == 0, done.output
    said, files = json.loads(done.stdout), (tmp_path / "out").iterdir()
    assert said["rounded"] == 1 and said["bytes_out"] == sum(file.stat().st_size for file in files)
    assert [plan["refused"] for plan in said["programs"]] == [None, None, None]


def test_programs_are_planned_for_the_backend_asked_for(tmp_path):
    source = tiny.write_hugging_face(tmp_path / "in")
    options = ["--backend", "vulkan", "--group-size", "16", "--json"]
    done = invoked(["convert", source, tmp_path / "out", *options])
    assert [plan["backend"] for plan in json.loads(done.stdout)["programs"]] == ["vulkan"] * 2
