"""Models as downloads, archives, copies and training leave them in a folder."""

import bz2
import lzma
import shlex
import shutil
import sys
import tarfile
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.models import tiny_models as tiny

from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.errors import InputError
from quatrain.tokenizer.files import tokenizer_files_in

RESOURCE_FORK = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "
QUERY = "base_model.model.model.layers.0.self_attn.q_proj.lora_"


def write_adapter(folder):
    folder.mkdir()
    parts = {f"{QUERY}A.weight": torch.ones(2, 64), f"{QUERY}B.weight": torch.ones(64, 2)}
    save_file(parts, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    return folder


def assert_whole(folder, base=None):
    assert set(open_float_model(folder, base).tensors) == set(tiny.float_tensors())


def refused(folder, message, base=None):
    with pytest.raises(InputError, match=message):
        open_float_model(folder, base)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.bin", "ft-{}-of-2.safetensors"])
def test_what_macos_leaves_beside_each_file(name, tmp_path):
    folder = tiny.write_hugging_face(tmp_path / "m", shards=2 if "{}" in name else 1)
    if "{}" in name:
        (folder / "model.safetensors.index.json").unlink()
    for index, file in enumerate(sorted(folder.glob("*.safetensors"))):
        file.rename(folder / name.format(index + 1))
    if name.endswith(".bin"):
        tensors = load_file((folder / name).rename(tmp_path / "before.safetensors"))
        torch.save(tensors, folder / name)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ messages }}")
    for file in [*folder.iterdir(), *folder.glob("*/*")]:
        file.with_name(f"._{file.name}").write_bytes(RESOURCE_FORK)
    assert_whole(folder)
    (folder / "tokenizer.json").write_text("{}")
    named = [file.name for file in tokenizer_files_in(folder)]
    assert named == ["tokenizer.json", "tool_use.jinja"]


def test_what_macos_leaves_beside_an_adapter(tmp_path):
    base = tiny.write_hugging_face(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter")
    for file in [*adapter.iterdir()]:
        file.with_name(f"._{file.name}").write_bytes(RESOURCE_FORK)
    assert_whole(adapter, base)


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "tokenizer.json",
        "generation_config.json",
        "chat_template.jinja",
        "merges.txt",
    ],
)
def test_a_link_that_leads_nowhere(name, tmp_path):
    """As in a snapshot of the hub's cache that was copied without its blobs."""
    folder = tiny.write_hugging_face(tmp_path)
    for unread in ("README.md", "LICENSE.txt"):
        (folder / unread).symlink_to("../../blobs/1f0a")
    assert_whole(folder)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to("../../blobs/0b5c")
    for opened in (open_float_model, open_checkpoint):
        with pytest.raises(InputError, match=rf"{name}: is a link to '../../blobs/0b5c'.*cp -rL"):
            opened(folder)


@pytest.mark.parametrize("index", [False, True])
def test_tensors_whose_link_leads_nowhere(index, tmp_path):
    folder = tiny.write_hugging_face(tmp_path, shards=2)
    if not index:
        (folder / "model.safetensors.index.json").unlink()
    shard = folder / "model-00002-of-00002.safetensors"
    shard.unlink()
    shard.symlink_to("../gone")
    refused(folder, r"model-00002-of-00002\.safetensors: is a link to '../gone'")
    for file in folder.glob("model*"):
        file.unlink()
    (folder / "model.safetensors").symlink_to("../gone")
    refused(folder, r"model\.safetensors: is a link to '../gone'")
    refused(folder / "model.safetensors", r"model\.safetensors: is a link to '../gone'")


def test_a_download_that_aria2_has_not_finished(tmp_path):
    """Its file is as long as the whole, and what is missing is 0."""
    folder = tiny.write_hugging_face(tmp_path)
    (folder / "model.safetensors.aria2").write_bytes(b"\0\1")
    refused(folder, r"model\.safetensors: its download is incomplete.*aria2c again with -c")


def test_a_download_under_its_name_until_it_is_whole(tmp_path):
    folder = tiny.write_hugging_face(tmp_path)
    (folder / "model.safetensors").rename(folder / "model.safetensors.part")
    refused(folder, r"found none; .*\. Finish the download of model\.safetensors\.part")


@pytest.mark.parametrize("kind", ["zip", "gzip", "tar"])
def test_an_archive_is_to_be_unpacked(kind, tmp_path):
    folder = tiny.write_hugging_face(tmp_path / "m")
    archive = tmp_path / "m.archive"
    if kind == "zip":
        shutil.make_archive(str(tmp_path / "m"), "zip", folder)
        (tmp_path / "m.zip").rename(archive)
    else:
        with tarfile.open(archive, "w:gz" if kind == "gzip" else "w") as file:
            file.add(folder, "m")
    refused(archive, rf"is an archive \({kind}\); unpack it")


ARCHIVES = {
    "bzip2": bz2.compress(b"m"),
    "xz": lzma.compress(b"m"),
    "7z": b"7z\xbc\xaf\x27\x1c",
    "zstd": b"\x28\xb5\x2f\xfd",
    "RAR": b"Rar!\x1a\x07\x01",
    "lz4": b"\x04\x22\x4d\x18",
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_alone_or_in_a_folder_is_to_be_unpacked(kind, tmp_path):
    folder = tiny.write_hugging_face(tmp_path / "m")
    weights = folder / "model.safetensors"
    weights.write_bytes(ARCHIVES[kind] + bytes(300))
    refused(weights, rf"is an archive \({kind}\); unpack it")
    refused(folder, rf"model\.safetensors: is an archive \({kind}\); unpack it")
    weights.rename(folder / "model.packed")
    refused(folder, r"found none; .*\. Unpack model\.packed there")
    (folder / "config.json").unlink()
    refused(folder, r"neither config\.json .*; unpack model\.packed there")


def test_a_format_that_is_a_zip_is_not_to_be_unpacked(tmp_path):
    folder = tiny.write_hugging_face(tmp_path)
    (folder / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "weights.npz", "w") as file:
        file.writestr("a.npy", "")
    refused(folder, r"found none; .*weights\.npz\. Download the model's weights")


def test_a_damaged_zip_is_left_to_who_reads_pickles(tmp_path):
    folder = tiny.write_hugging_face(tmp_path)
    (folder / "model.safetensors").write_bytes(b"PK\x03\x04" + bytes(100))
    refused(folder, "with another suffix")


@pytest.mark.parametrize(
    "content, what",
    [
        (b"", "it is empty: download it again"),
        (b"<p>Not found", "it begins with b'<p>Not found': download"),
        (b'{"a": 1, "b"', "it ends with .* cut short: download"),
        (b"Entry not found", "it begins with b'Entry not found': download"),
        ('{"a": 1}'.encode("utf-16"), "it is in UTF-16: save it in UTF-8"),
        ('{"a": 1}'.encode("utf-16-le"), "it is in UTF-16: save it in UTF-8"),
        ('{"a": "Jürgen"}'.encode("latin-1"), r"in another encoding: save it in UTF-8 \(iconv"),
        ('{"a": "Jürg"'.encode()[:10], "it ends with .* cut short: download"),
        (b'{"a": 1,}', "line 1 column [89].*; correct it there, or download it again$"),
        (b'// of the base\n{"a": 1}', "JSON has no comments: remove them"),
    ],
)
def test_a_file_that_is_not_json_is_named(content, what, tmp_path):
    folder = tiny.write_hugging_face(tmp_path)
    (folder / "config.json").write_bytes(content)
    refused(folder, rf"config\.json: cannot be read as JSON: .*{what}")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "model.bin", "model.gguf"])
@pytest.mark.parametrize("page", [b"<!doctype html>\n<html>", b"\n<HTML lang=en>"])
def test_a_web_page_in_place_of_a_file(name, page, tmp_path):
    """Which comes of the address that a browser shows, or without permission."""
    folder = tiny.write_hugging_face(tmp_path)
    if name == "model.bin":
        (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(page)
    given = folder / name if name.endswith("gguf") else folder
    refused(given, rf"/{name}: is a web page .*/resolve/ in place of /blob/")


def test_weights_that_training_left_in_parts(tmp_path):
    """In their place ZeRO-3 leaves tensors without a value."""
    base = tiny.write_hugging_face(tmp_path / "base")
    adapter = write_adapter(tmp_path / "adapter")
    for file, folder in (("adapter_model", adapter), ("model", base)):
        path = folder / f"{file}.safetensors"
        save_file({name: torch.empty(0) for name in load_file(path)}, path)
        whole = base if folder == adapter else None
        refused(folder, r"is empty \(its shape is \[0\]\).*zero_to_fp32", whole)


@pytest.mark.parametrize("name", ["config (1).json", "config.json.txt", "Config.json"])
def test_a_config_under_another_name(name, tmp_path):
    folder = tiny.write_hugging_face(tmp_path)
    (folder / "config.json").rename(folder / name)
    with pytest.raises(InputError) as error:
        open_float_model(folder)
    assert f"if {name} is one of them, rename it to that" in str(error.value)


def test_what_torchtune_writes_in_an_epoch(tmp_path):
    """The model, and once more the adapter that is merged into it, in torchtune's form."""
    folder = tiny.write_hugging_face(tmp_path / "epoch_0")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    for index, name in enumerate(("hf_model_0001_0.pt", "hf_model_0002_0.pt")):
        torch.save({key: tensors[key] for key in sorted(tensors)[index::2]}, folder / name)
    own = {"layers.0.attn.q_proj.lora_a.weight": torch.ones(2, 64)}
    torch.save(own, folder / "adapter_0.pt")
    assert_whole(folder)
    adapter = write_adapter(tmp_path / "adapter")
    torch.save(own, adapter / "adapter_model.pt")
    save_file({"v_head.summary.weight": torch.ones(1, 64)}, adapter / "value_head.safetensors")
    base = tiny.write_hugging_face(tmp_path / "base")
    assert_whole(adapter, base)
    (adapter / "other.bin").write_bytes(b"")
    refused(adapter, r"move other\.bin, which may belong to a whole model, out of the folder", base)


def test_a_byte_order_mark_before_each_text(tmp_path):
    folder = tiny.write_hugging_face(tmp_path, shards=2)
    for file in folder.glob("*.json"):
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
    assert_whole(folder)


def test_shards_of_two_models(tmp_path):
    folder = tiny.write_hugging_face(tmp_path / "m", shards=2)
    tiny.write_hugging_face(tmp_path / "other", shards=3)
    (folder / "model.safetensors.index.json").unlink()
    for shard in (tmp_path / "other").glob("model-*"):
        shutil.copy(shard, folder)
    refused(folder, "holds shards of 2 and of 3, which belong to several models")


def test_a_model_that_is_further_down(tmp_path):
    adapter = write_adapter(tmp_path / "adapter")
    snapshot = tiny.write_hugging_face(tmp_path / "models--o--n" / "snapshots" / "0b5c")
    refused(adapter, rf"not a Hugging Face folder, .*, such as {snapshot}$", snapshot.parent.parent)
    older = tiny.write_hugging_face(snapshot.parent / "f00d")
    cached = snapshot.parent.parent
    refused(cached, rf"give a model's folder, such as {older}, ")  # the last of them, by name
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(snapshot.name)
    for folder in (cached, snapshot.parent):
        refused(folder, rf"give a model's folder, such as {snapshot}, ")
    (tmp_path / "ggufs").mkdir()
    for name in ("mmproj-f16.gguf", "qwen.gguf"):
        (tmp_path / "ggufs" / name).write_bytes(b"GGUF")
    refused(tmp_path / "ggufs", r"give a model's folder or .*/qwen\.gguf$")


@pytest.mark.parametrize("suffix", [".onnx", ".msgpack"])
def test_a_format_without_a_magic_number_is_named_by_its_suffix(suffix, tmp_path):
    file = tmp_path / f"m{suffix}"
    file.write_bytes(b"\x08\x07\x12\x07pytorch")
    refused(file, r"is an? \w+ (model|file).*, which is not read; give the model")
    folder = tiny.write_hugging_face(tmp_path / "m")  # of which the content says more
    whole = (folder / "model.safetensors").rename(folder / f"model{suffix}")
    with pytest.raises(InputError, match="give the folder"):
        open_float_model(whole)


def test_torchscript_says_how_to_save_its_weights(tmp_path, monkeypatch):
    folder = tiny.write_meta(tmp_path / "it's of m")
    weights = folder / "consolidated.00.pth"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(4, 4), torch.ones(1, 4)), str(weights))
    with pytest.raises(InputError, match="is a TorchScript program") as caught:
        open_float_model(folder)
    interpreter, flag, code, *files = shlex.split(str(caught.value).split("`")[1])
    assert (interpreter, flag) == ("python", "-c")
    monkeypatch.setattr(sys, "argv", [flag, *files])
    exec(code)
    saved = torch.load(folder / "consolidated.00-weights.pt", weights_only=True)
    assert list(saved) == ["weight", "bias"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"tjgg\3\0\0\0", "a GGML file, llama.cpp's format before GGUF"),
        (b"\x1c\0\0\0TFL3", "a LiteRT"),
        (b"LITERTLM\1", "a LiteRT-LM model"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        ({"TF_LITE_PREFILL_DECODE": b"\x1c\0\0\0TFL3"}, "a MediaPipe bundle"),
        ({"m/archive_format": b"pt2"}, "a program of torch.export"),
    ],
)
def test_files_of_other_programs_are_named(content, said, tmp_path):
    """The remedy is not to unpack them, or to download them again."""
    file = tmp_path / "m.bin"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        with zipfile.ZipFile(file, "w") as archive:
            for name, part in content.items():
                archive.writestr(name, part)
    refused(file, f"is {said}.*; give the model that it was made from")
    refused(tmp_path, rf"m\.bin: is {said}.*; give the model that it was made from")


@pytest.mark.parametrize(
    ("beside", "remedy"),
    [("m.gguf", "a model's folder or .*m.gguf"), ("m.safetensors", "put the one of m.safetensors")],
)
def test_a_model_beside_a_file_of_another_program_is_told_of(beside, remedy, tmp_path):
    (tmp_path / "decoder.onnx").write_bytes(b"\x08\x07\x12\x07pytorch")
    (tmp_path / beside).write_bytes(b"GGUF")
    with pytest.raises(InputError, match=remedy):
        open_float_model(tmp_path)
