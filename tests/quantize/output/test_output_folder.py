"""Where a checkpoint may go: never over what it is made of, nor into another model's folder."""

from functools import partial

import pytest
from tests.support.formats import gguf_files as ggufs
from tests.support.formats import quantized_folders as folders
from tests.support.models import tiny_models as tiny
from tests.support.paths import contents

from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import InputError
from quatrain.quantize.pipeline import convert_model, quantize_model

ROUND_TO_NEAREST = partial(quantize_model, method="rtn")
WRITERS = pytest.mark.parametrize(
    "write", [convert_model, ROUND_TO_NEAREST], ids=["convert_model", "quantize_model"]
)
OWN = {"model.safetensors", "params.json", "tokenizer.json", "tokenizer_config.json"}


def assert_refused(write, source, output, message):
    """Nothing in `output`, nor beside it, is touched."""
    before, beside = contents(output), set(output.parent.iterdir())
    with pytest.raises(InputError, match=message):
        write(source, output)
    assert contents(output) == before and set(output.parent.iterdir()) == beside


@WRITERS
def test_the_source_is_not_written_over(tmp_path, write):
    meta = tiny.write_meta(tmp_path / "meta")
    assert_refused(write, meta, meta, "holds the source model")
    (tmp_path / "link").symlink_to(meta)
    assert_refused(write, meta, tmp_path / "link", "holds the source model")
    gguf = ggufs.write_gguf(meta / "m.gguf")
    (meta / "consolidated.00.pth").unlink()
    assert_refused(write, gguf, meta, r"holds the source model \(m\.gguf\)")


def test_nor_where_it_is_named_by_a_file_or_its_parameters(tmp_path):
    source = tiny.write_checkpoint(tmp_path / "in", file="m.pth")
    assert_refused(convert_model, source / "m.pth", source, "holds the source model")
    params = (tmp_path / "elsewhere") / "params.json"
    params.parent.mkdir()
    (source / "params.json").rename(params)

    def with_params(path, output):
        convert_model(path, output, params=params)

    assert_refused(
        with_params, source / "m.pth", params.parent, r"holds the source model \(params\.json\)"
    )


OTHERS = {
    "hf": tiny.write_hugging_face,
    "shards": lambda folder: tiny.write_hugging_face(folder, shards=2),
    "gptq": lambda folder: folders.write_quantized(folder, "gptq"),
    "meta": tiny.write_meta,
    "pth": lambda folder: tiny.write_checkpoint(folder, file="m.pth"),
}


@WRITERS
@pytest.mark.parametrize("other", OTHERS)
def test_another_model_is_not_broken(tmp_path, write, other):
    source, output = tiny.write_meta(tmp_path / "in"), OTHERS[other](tmp_path / "out")
    assert_refused(write, source, output, r"holds another model \(")
    if other == "hf":  # weights of which nothing is known
        (output / "config.json").unlink()
        assert_refused(write, source, output, r"another model \(model\.safetensors\)")


@WRITERS
def test_an_earlier_checkpoint_is_replaced_with_its_tokenizer(tmp_path, write):
    output = tmp_path / "out"
    convert_model(ggufs.write_gguf(tmp_path / "m.gguf"), output)
    assert {*OWN, "quatrain_manifest.json"} == contents(output).keys()
    (output / "notes.txt").write_text("mine")
    write(tiny.write_meta(tmp_path / "in"), output)
    written = {"model.safetensors", "params.json"}
    written |= {"quatrain_manifest.json"} if write is convert_model else set()
    assert contents(output).keys() == written | {"notes.txt"}
    checkpoint = open_checkpoint(output)
    checkpoint.check_values()
    assert not checkpoint.tokenizer_files


@WRITERS
@pytest.mark.parametrize("name", [".", "", "./", "../out"])
def test_the_folder_one_is_in(tmp_path, monkeypatch, write, name):
    source = tiny.write_meta(tmp_path / "in")
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    write(source, name)
    open_checkpoint(tmp_path / "out").check_values()
    assert {file.name for file in tmp_path.iterdir()} == {"in", "out"}


@WRITERS
def test_links_and_files(tmp_path, write):
    source = tiny.write_meta(tmp_path / "in")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(InputError, match=r"is a link to .*real, which does not exist"):
        write(source, tmp_path / "link")
    (tmp_path / "real").mkdir()
    write(source, tmp_path / "link")
    open_checkpoint(tmp_path / "real").check_values()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file, expected a folder"):
        write(source, tmp_path / "file")
    assert {file.name for file in tmp_path.iterdir()} == {"in", "link", "real", "file"}
