"""Archives and index files made to do harm: nothing runs, nothing is written, nothing is taken."""

import json
import pickle
import resource
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.support.formats import quantized_folders as folders
from tests.support.models import tiny_models as tiny

from quatrain.checkpoint.files.shards import read_merged
from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.errors import InputError


def write_archive(folder, pickled: bytes, extra=(), compression=zipfile.ZIP_STORED):
    """A .pth as torch.save lays it out, around any pickle."""
    folder = tiny.write_checkpoint(folder)
    (folder / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "m.pth", "w", compression) as archive:
        archive.writestr("m/data.pkl", pickled)
        archive.writestr("m/version", "3\n")
        archive.writestr("m/byteorder", "little")
        for name, content in extra:
            archive.writestr(name, content)
    return folder


def refused(folder, match):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=match):
        open_checkpoint(folder)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


class Call:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "call",
    [
        Call(bytearray, 1 << 38),  # which PyTorch's own weights_only lets through
        Call(set, range(3)),
        Call(eval, "1 + 1"),
        Call(torch.zeros, 1 << 38),
        Call(torch.load, "elsewhere.pth"),
    ],
)
def test_a_pickle_that_calls_anything_is_refused(tmp_path, call):
    content = pickle.dumps({"norm.weight": call}, protocol=2)
    refused(write_archive(tmp_path, content), "cannot be read as tensors only")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("torchao.quantization\nInt4Tensor", "an? Int4Tensor of torchao, expected IntxUnpackedTo"),
        ("torch.distributed.tensor\nDTensor", "a DTensor of .*save the whole model .get_model_s"),
        ("bitsandbytes.nn.modules\nParams4bit", "of bitsandbytes, .*quantize the original model"),
    ],
)
def test_tensors_of_other_classes_are_answered_with_what_helps(tmp_path, names, message):
    """`torchao.quantization Int4Tensor` is what a pickle of Int4WeightOnlyConfig's names."""
    refused(write_archive(tmp_path, f"\x80\x02c{names}\n.".encode("latin-1")), message)


def test_a_newer_pickle_cannot_name_things_otherwise(tmp_path):
    content = pickle.dumps({"norm.weight": Call(bytearray, 8)}, protocol=4)
    refused(write_archive(tmp_path, content), "STACK_GLOBAL")


def test_a_zip_bomb_is_refused_unopened(tmp_path):
    bomb = [("m/data/0", bytes(300_000_000))]
    pickled = pickle.dumps({}, protocol=2)
    folder = write_archive(tmp_path, pickled, bomb, zipfile.ZIP_DEFLATED)
    assert (folder / "m.pth").stat().st_size < 1_000_000
    refused(folder, "compressed or larger")


def test_a_bomb_in_the_pickle_is_refused_unopened(tmp_path):
    folder = write_archive(tmp_path, bytes(300_000_000), (), zipfile.ZIP_DEFLATED)
    refused(folder, "compressed or larger")


def test_an_encrypted_part_is_refused(tmp_path):
    folder = tiny.write_checkpoint(tmp_path, file="m.pth")
    content = bytearray((folder / "m.pth").read_bytes())
    flags = content.index(b"PK\x01\x02") + 8  # of the central directory's first entry
    content[flags] |= 1
    (folder / "m.pth").write_bytes(content)
    refused(folder, "data.pkl' is encrypted, which torch.save never does")


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "m/../../outside", "m/data/../x"])
def test_parts_that_lead_elsewhere_write_nothing(tmp_path, name):
    torch.save(tiny.int4_tensors(), tmp_path / "plain.pth")
    folder = tiny.write_checkpoint(tmp_path / "a" / "b", file="m.pth")
    with zipfile.ZipFile(folder / "m.pth", "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(name, b"planted")
    before = set(tmp_path.rglob("*"))
    refused(folder, "leads out of the archive")
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_parts_of_one_name_are_refused(tmp_path):
    folder = tiny.write_checkpoint(tmp_path, file="m.pth")
    (folder / "model.safetensors").unlink(missing_ok=True)
    with zipfile.ZipFile(folder / "m.pth", "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(archive.infolist()[0].filename, b"another")
    refused(folder, "two of its parts have the same name|pickles")


@pytest.mark.parametrize(
    "shard", ["../away.safetensors", "/etc/hostname", "sub/x.safetensors", "..", ".", ""]
)
@pytest.mark.parametrize("quantized", [False, True])
def test_an_index_that_leads_elsewhere(tmp_path, shard, quantized):
    folder = tmp_path / "m"
    if quantized:
        folders.write_quantized(folder, "gptq", shards=2)
    else:
        tiny.write_hugging_face(folder, shards=2)
    (tmp_path / "away.safetensors").write_bytes(
        (folder / "model-00001-of-00002.safetensors").read_bytes()
    )
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": shard}}))
    with pytest.raises(InputError, match="not in the folder"):
        (open_checkpoint if quantized else open_float_model)(folder)


@pytest.mark.parametrize(
    "index", [[], {"weight_map": []}, {"weight_map": {}}, {"weight_map": {"x": 3}}, {}]
)
def test_an_index_of_another_shape(tmp_path, index):
    folder = folders.write_quantized(tmp_path, "gptq", shards=2)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"index\.json"):
        open_checkpoint(folder)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float32])
def test_a_tensor_in_two_shards(tmp_path, dtype):
    """It counts once where it is the same, as a matrix in FP8 or a number may be."""
    folder = tiny.write_hugging_face(tmp_path, shards=2)
    first, second = sorted(folder.glob("*.safetensors"))
    both = load_file(second) | {"k": torch.ones(4, 4).to(dtype), "one": torch.tensor(1.0)}
    save_file({name: both[name] for name in ("k", "one")} | load_file(first), first)
    save_file(both, second)
    assert set(read_merged([first, second])[0]) == {*load_file(first), *both}
    save_file(both | {"k": torch.zeros(4, 4).to(dtype)}, second)
    with pytest.raises(InputError, match=rf"{second.name}: holds another k than {first.name}"):
        open_float_model(folder)


def test_a_tensor_that_repeats_its_bytes(tmp_path):
    """A few kilobytes that would be written out as half a gigabyte."""
    tensors = tiny.float_tensors()
    tensors["tok_embeddings.weight"] = torch.zeros(1, 64).expand(2_000_000, 64)
    folder = tiny.write_meta(tmp_path, tensors=tensors, vocab_size=2_000_000)
    with pytest.raises(InputError, match=r"tok_embeddings\.weight repeats 256 bytes to 512000000"):
        open_float_model(folder)


def test_many_tensors_of_the_same_bytes(tmp_path):
    one = torch.zeros(1000, 64, dtype=torch.int8)
    tensors = tiny.int4_tensors() | {f"layers.0.{index}.weight": one for index in range(50)}
    folder = tiny.write_checkpoint(tmp_path, tensors, "m.pth")
    with pytest.raises(InputError, match=r"its tensors hold \d+ bytes, but the file only \d+"):
        open_checkpoint(folder)


def test_a_tied_output_may_be_the_embeddings_bytes(tmp_path):
    tensors = tiny.float_tensors(tied=True)
    tensors["output.weight"] = tensors["tok_embeddings.weight"]
    open_float_model(tiny.write_meta(tmp_path, tensors=tensors))


def test_a_name_that_is_not_utf_8_is_the_error(tmp_path):
    folder = tiny.write_checkpoint(tmp_path / "gr\udcf6sse")
    with pytest.raises(InputError, match="its name is not UTF-8"):
        open_checkpoint(folder)
