"""`convert_model`: every source in one layout, exactly, in little memory, interrupted or not."""

import hashlib
import json
import subprocess
import sys

import gguf
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support import quantized_folders as folders
from tests.support import tiny_models as tiny
from typer.testing import CliRunner

from quatrain.checkpoint import open_checkpoint
from quatrain.cli import build_app
from quatrain.errors import InputError
from quatrain.quantize.methods.round_to_nearest import quantize_channels, quantize_groups
from quatrain.quantize.pipeline import ConvertOptions, convert_model, quantize_model
from quatrain.quantize.resumable import ResumableFile

WQ = "layers.0.attention.wq"


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
        "gguf": tiny.write_gguf(tmp_path / "m.gguf", kind="Q8_0"),
        "hf": tiny.write_hugging_face(tmp_path / "hf", shards=2),
        "meta": tiny.write_meta(tmp_path / "meta"),
    }.items():
        quantize_model(source, tmp_path / f"{name}-quantized")
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
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (source / name).write_text("{}")
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
    assert (tmp_path / "a" / "tokenizer.json").read_text() == "{}"


def test_the_manifest_names_what_lies_beside_a_file(tmp_path):
    source = tiny.write_checkpoint(tmp_path / "in", file="m.pth")
    (source / "tokenizer.json").write_text("{}")
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
    with pytest.raises(InputError, match=r"--group-size 64: .* already, in groups of 32"):
        convert_model(quantized, tmp_path / "out", ConvertOptions(group_size=64))
    convert_model(quantized, tmp_path / "out", ConvertOptions(group_size=32))
    model = tiny.write_meta(tmp_path / "meta")
    with pytest.raises(InputError, match=r"--params .*is in floating point"):
        convert_model(model, tmp_path / "other", params=model / "params.json")
    with pytest.raises(InputError, match="give the folder"):
        convert_model(model / "consolidated.00.pth", tmp_path / "other")
    safetensors = tiny.write_hugging_face(tmp_path / "hf") / "model.safetensors"
    with pytest.raises(InputError, match="give the folder"):
        convert_model(safetensors, tmp_path / "other")
    with pytest.raises(InputError, match="group size 0 is not supported"):
        convert_model(model, tmp_path / "other", ConvertOptions(group_size=0))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("pre", ["of-no-known-kind", None])
def test_a_tokenizer_that_cannot_be_read_shows_before_the_work(tmp_path, monkeypatch, pre):
    source = tiny.write_gguf(tmp_path / "m.gguf", tokenizer=pre)
    monkeypatch.setattr(
        "quatrain.quantize.writer.quantize_tensor", lambda *_: pytest.fail("a tensor was made")
    )
    for write in (convert_model, quantize_model):
        with pytest.raises(InputError, match="tokenizer"):
            write(source, tmp_path / "out")
        assert [file.name for file in tmp_path.iterdir()] == ["m.gguf"]


def test_a_part_of_a_split_gguf(tmp_path):
    """The second part has no metadata of the model's."""
    writer = gguf.GGUFWriter(tmp_path / "m-00002-of-00003.gguf", "llama")
    for key, value in {"split.no": 1, "split.count": 3}.items():
        writer.add_uint16(key, value)
    writer.add_tensor("blk.1.attn_norm.weight", torch.ones(64).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(InputError, match="is part 2 of 3 of a split model; join them"):
        convert_model(tmp_path / "m-00002-of-00003.gguf", tmp_path / "out")


def test_tables_are_rounded_where_asked(tmp_path):
    source = folders.write_quantized(tmp_path / "in", "gptq")
    options = ConvertOptions(embedding="int8", output_layer="int4")
    report = convert_model(source, tmp_path / "out", options)
    assert report.rounded == 2
    checkpoint = open_checkpoint(tmp_path / "out")
    checkpoint.check_values()
    assert (checkpoint.embedding_kind, checkpoint.output_kind) == ("int8", "int4")
    with pytest.raises(InputError, match=r"tok_embeddings\.weight is int8 already"):
        convert_model(tmp_path / "out", tmp_path / "again", ConvertOptions(embedding="int4"))


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


def test_a_tied_output_is_not_rounded_from_integers(tmp_path):
    source = tied(tiny.write_checkpoint(tmp_path / "in"))
    with pytest.raises(InputError, match="output layer is tied to the embedding, which is not in"):
        convert_model(source, tmp_path / "out", ConvertOptions(output_layer="int4"))
    assert not (tmp_path / "out").exists()
    assert convert_model(source, tmp_path / "out").rounded == 0


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


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("stop_after", [0, 1, 2, 7, 21])
def test_an_interrupted_conversion_goes_on(tmp_path, monkeypatch, stop_after):
    zeros = {WQ: torch.ones(64, 2)}
    source = folders.write_quantized(tmp_path / "in", "gptq", zeros=zeros)
    options = ConvertOptions(requantize_asymmetric=True, output_layer="int8")
    convert_model(source, tmp_path / "whole", options)

    append = ResumableFile.append
    plans = []

    def failing(self, chunks, carried):
        if len(plans) == stop_after:
            self._file.write(b"half a step")
            raise Interrupted
        plans.append(None)
        append(self, chunks, carried)

    monkeypatch.setattr(ResumableFile, "append", failing)
    with pytest.raises(Interrupted):
        convert_model(source, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(ResumableFile, "append", append)
    report = convert_model(source, tmp_path / "out", options)
    assert (report.resumed_at > 0) == (stop_after > 1)
    for file in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
    assert {file.name for file in tmp_path.iterdir()} == {"in", "whole", "out"}


def interrupted_conversion(monkeypatch, source, output):
    append = ResumableFile.append

    def failing(self, chunks, carried):
        if self.done == 9:
            raise Interrupted
        append(self, chunks, carried)

    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(ResumableFile, "append", failing)
        convert_model(source, output)


def test_what_another_version_wrote_is_thrown_away(tmp_path, monkeypatch):
    source = folders.write_quantized(tmp_path / "in", "gptq")
    interrupted_conversion(monkeypatch, source, tmp_path / "out")
    monkeypatch.setattr("quatrain.quantize.pipeline.version", lambda _: "0.0.0")
    assert convert_model(source, tmp_path / "out").resumed_at == 0


def test_the_tokenizer_of_another_source_is_thrown_away(tmp_path, monkeypatch):
    interrupted_conversion(monkeypatch, tiny.write_gguf(tmp_path / "m.gguf"), tmp_path / "out")
    assert (tmp_path / ".out.converting" / "tokenizer.json").is_file()
    convert_model(tiny.write_meta(tmp_path / "in"), tmp_path / "out")
    assert not open_checkpoint(tmp_path / "out").tokenizer_files


def test_what_was_written_of_another_source_is_thrown_away(tmp_path, monkeypatch):
    source = folders.write_quantized(tmp_path / "in", "gptq")
    interrupted_conversion(monkeypatch, source, tmp_path / "out")
    partial = tmp_path / ".out.converting" / "model.safetensors"
    damaged = bytearray(partial.read_bytes())
    damaged[-1] ^= 1
    partial.write_bytes(damaged)
    assert convert_model(source, tmp_path / "out").resumed_at == 0
    open_checkpoint(tmp_path / "out").check_values()


def test_an_output_that_cannot_be_written(tmp_path):
    source = tiny.write_checkpoint(tmp_path / "in")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        convert_model(source, tmp_path / "file")
    with pytest.raises(InputError, match="cannot be written"):
        convert_model(source, tmp_path / "file" / "out")


MEMORY = """
import sys
from pathlib import Path
from quatrain.quantize.pipeline import convert_model
from quatrain.stages import peak_rss_bytes
import quatrain.checkpoint.hugging_face.quantized, torch
before = peak_rss_bytes()
report = convert_model(Path(sys.argv[1]), Path(sys.argv[2]))
print(report.peak_rss_bytes - before, report.bytes_out)
"""


def grown_and_written(source, output, write="convert_model"):
    """Bytes that a process of its own grew by, and bytes that it wrote."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY.replace("convert_model", write), source, output],
        capture_output=True,
        text=True,
        check=True,
    )
    grown, written = map(int, done.stdout.split())
    return grown, written


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_memory_does_not_grow_with_the_source(tmp_path, form, monkeypatch):
    """A 340 MB checkpoint: less than it is held at any time."""
    rows, columns, layers = 4096, 2048, 8
    params = tiny.PARAMS | {"dim": columns, "hidden_dim": rows, "n_layers": layers}
    params |= {"n_heads": 16, "n_kv_heads": 2, "head_dim": 128, "vocab_size": 64}
    shapes = {
        "attention.wq": (2048, columns),
        "attention.wk": (256, columns),
        "attention.wv": (256, columns),
        "attention.wo": (columns, 2048),
        "feed_forward.w1": (rows, columns),
        "feed_forward.w2": (columns, rows),
        "feed_forward.w3": (rows, columns),
    }
    tensors = {
        "tok_embeddings.weight": torch.zeros(64, columns),
        "norm.weight": torch.ones(columns),
    }
    for layer in range(layers):
        for name in ("attention_norm", "ffn_norm"):
            tensors[f"layers.{layer}.{name}.weight"] = torch.ones(columns)
        for name, shape in shapes.items():
            tensors[f"layers.{layer}.{name}.weight"] = torch.ones(shape, dtype=torch.int8)
            tensors[f"layers.{layer}.{name}.scales"] = torch.ones(shape[0], shape[1] // 32)
    file = "m.pth" if form == "pth" else "model.safetensors"
    source = tiny.write_checkpoint(tmp_path / "in", tensors, file, **params)
    grown, written = grown_and_written(source, tmp_path / "out")
    assert written > 300e6
    assert grown < 250e6, f"grew by {grown / 1e6:.0f} MB for {written / 1e6:.0f} MB"


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0"])
@pytest.mark.parametrize("write", ["convert_model", "quantize_model"])
def test_a_gguf_table_is_never_in_memory_as_floats(tmp_path, kind, write):
    """33.5 million elements, twice: 134 MB in float32, 34 MB as the integers that are written."""
    tensors = tiny.float_tensors(tied=True)
    table = torch.randn(1 << 12, 64, generator=torch.Generator().manual_seed(0))
    tensors["tok_embeddings.weight"] = table.repeat(1 << 7, 1)
    source = tiny.write_gguf(tmp_path / "m.gguf", tensors, kind=kind)
    grown, written = grown_and_written(source, tmp_path / "out", write)
    assert written > 67e6
    assert grown < 160e6, f"grew by {grown / 1e6:.0f} MB"


CTRL_C = """
from quatrain.cli import main
from quatrain.quantize import pipeline
from quatrain.quantize.resumable import ResumableFile

def interrupt(*_):
    raise KeyboardInterrupt

{patched} = interrupt
main()
"""


@pytest.mark.parametrize(
    ("patched", "said"),
    [
        ("ResumableFile.append", "interrupted; the same command goes on where it was, with what"),
        ("pipeline.source_files", "interrupted; nothing was written"),
    ],
)
def test_ctrl_c(tmp_path, patched, said):
    source = folders.write_quantized(tmp_path / "in", "gptq")
    done = subprocess.run(
        [sys.executable, "-c", CTRL_C.format(patched=patched), "convert", source, "out"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1].startswith(f"error: {said}")
    kept = tmp_path / ".out.converting"
    assert kept.exists() == (str(kept) in done.stderr)


def test_command(tmp_path):
    source = folders.write_quantized(tmp_path / "in", "gptq")
    arguments = ["convert", str(source), str(tmp_path / "out"), "--output-layer", "int4", "--json"]
    done = CliRunner().invoke(build_app(), arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["rounded"] == 1
