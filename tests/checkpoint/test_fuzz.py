"""Damaged files: each opens or is refused with one `InputError`, and neither takes memory."""

import io
import os
import resource
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sentencepiece import SentencePieceProcessor
from tests.support.formats import gguf_files as ggufs
from tests.support.formats import meta_releases as releases
from tests.support.formats import quantized_folders as folders
from tests.support.formats import sentencepiece_models as spm
from tests.support.models import tiny_models as tiny

from quatrain.checkpoint.gguf.file import read_gguf
from quatrain.checkpoint.open import is_quantized, open_checkpoint, open_float_model
from quatrain.errors import InputError
from quatrain.quantize.requantize import Requantization
from quatrain.tokenizer.from_gguf import tokenizer_files_from_gguf

WRITERS = {
    "safetensors": lambda folder: tiny.write_checkpoint(folder) / "model.safetensors",
    "pth": lambda folder: tiny.write_checkpoint(folder, file="m.pth") / "m.pth",
    "params": lambda folder: tiny.write_checkpoint(folder) / "params.json",
    "gguf": lambda folder: ggufs.write_gguf(folder / "m.gguf", tiny.float_tensors(), kind="Q4_0"),
    "gguf sentencepiece": lambda folder: spm.write_gguf(
        folder / "t.gguf", SentencePieceProcessor(model_proto=spm.trained("small"))
    ),
    "gguf gemma2": lambda folder: ggufs.write_gguf_gemma2(folder / "m.gguf"),
    "gguf phi3": lambda folder: ggufs.write_gguf_phi3(folder / "m.gguf"),
    "config": lambda folder: tiny.write_hugging_face(folder) / "config.json",
    "meta": lambda folder: tiny.write_meta(folder) / "consolidated.00.pth",
    "gptq": lambda folder: folders.write_quantized(folder, "gptq") / "model.safetensors",
    "awq": lambda folder: folders.write_quantized(folder, "awq") / "model.safetensors",
    "compressed-tensors": lambda folder: (
        folders.write_quantized(folder, "compressed-tensors") / "model.safetensors"
    ),
    "spinquant params": lambda folder: (
        releases.write_release(folder, releases.release_tensors(), **releases.SPINQUANT)
        / "params.json"
    ),
    "quantization_config": lambda folder: (
        folders.write_quantized(folder, "compressed-tensors") / "config.json"
    ),
    "index": lambda folder: (
        folders.write_quantized(folder, "gptq", shards=2) / "model.safetensors.index.json"
    ),
    "torchao": lambda folder: folders.write_torchao(folder)[0] / "model.safetensors",
    "torchao pickle": lambda folder: (
        folders.write_torchao(folder, pickled=True)[0] / "pytorch_model.bin"
    ),
    "qlora": lambda folder: (
        releases.write_release(folder, releases.release_tensors(True), **releases.LORA)
        / "consolidated.00.pth"
    ),
    "qlora params": lambda folder: (
        releases.write_release(folder, releases.release_tensors(True), **releases.LORA)
        / "params.json"
    ),
    "k-quants": lambda folder: ggufs.write_k_quants(
        folder / "k.gguf", {kind: f"blk.0.{kind}" for kind in ("Q4_K", "Q6_K")}
    ),
}
FEW = settings(
    max_examples=int(os.environ.get("QUATRAIN_FUZZ", 40)),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def read_all(path: Path) -> None:
    """Do with `path` what the commands do, down to each tensor's values."""
    if path.name == "k.gguf":
        tensors = read_gguf(path).float_tensors()
        for name in tensors:
            tensors[name].sum()
        return
    if path.name == "t.gguf":
        with tempfile.TemporaryDirectory() as folder:
            tokenizer_files_from_gguf(read_gguf(path).metadata, path, Path(folder))
        return
    source = path if path.suffix == ".gguf" else path.parent
    if is_quantized(source):
        read_checkpoint(source)
        return
    model = open_float_model(source)
    for name in model.tensors:
        model.tensors[name].sum()
    with tempfile.TemporaryDirectory() as folder:
        model.write_tokenizer(Path(folder))


def read_checkpoint(source: Path) -> None:
    checkpoint = open_checkpoint(source)
    checkpoint.check_values()
    assert checkpoint.embedding_kind and checkpoint.output_kind
    again = open_checkpoint(source, round_again=Requantization())
    for name in again.tensors:
        again.tensors[name].sum()


@pytest.fixture(scope="module", params=WRITERS)
def whole(request, tmp_path_factory):
    path = WRITERS[request.param](tmp_path_factory.mktemp(request.param))
    read_all(path)
    return path, path.read_bytes()


def refused_or_read(path: Path, content: bytes) -> None:
    # A file of its own each time: what was mapped from it before must not change below it.
    path.unlink()
    path.write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        read_all(path)
    except InputError as error:
        assert str(path.parent) in str(error)
        assert len(str(error)) < 2000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


@FEW
@given(data=st.data())
def test_truncation(whole, data):
    path, content = whole
    early = st.integers(0, min(4096, len(content) - 1))
    length = data.draw(early | st.integers(0, len(content) - 1))
    refused_or_read(path, content[:length])


@FEW
@given(data=st.data())
def test_mutation(whole, data):
    path, content = whole
    damaged = bytearray(content)
    # Headers are at the front, or in a zip at the back.
    near = st.integers(0, min(4096, len(content) - 1))
    place = near | near.map(lambda back: len(content) - 1 - back) | st.integers(0, len(content) - 1)
    for position in data.draw(st.lists(place, min_size=1, max_size=8)):
        damaged[position] = data.draw(st.integers(0, 255) | st.sampled_from((0, 127, 128, 255)))
    refused_or_read(path, bytes(damaged))


@FEW
@given(data=st.data())
def test_a_large_number_anywhere(whole, data):
    """What a length or count becomes when eight bytes of it go wrong together."""
    path, content = whole
    position = data.draw(st.integers(0, min(len(content), 20_000) - 8))
    number = data.draw(st.sampled_from((2**63 - 1, 2**64 - 1, 2**40, 2**31, len(content), 0)))
    damaged = content[:position] + number.to_bytes(8, "little") + content[position + 8 :]
    refused_or_read(path, damaged)


def test_truncated_files_say_so(tmp_path):
    for kind, words in {
        "safetensors": "not a whole .safetensors",
        "pth": "not a whole .pth",
        "gguf": "not a whole GGUF",
    }.items():
        (tmp_path / kind).mkdir()
        path = WRITERS[kind](tmp_path / kind)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(InputError, match=words):
            read_all(path)


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    """A pickle may ask for any size; nothing is allocated for it."""
    tensors = tiny.int4_tensors()
    path = tiny.write_checkpoint(tmp_path, tensors, file="m.pth") / "m.pth"
    torch.save(tensors | {"norm.weight": torch.zeros(1).expand(1 << 40)}, path)
    with pytest.raises(InputError, match=r"norm\.weight repeats 4 bytes"):
        open_checkpoint(tmp_path)


@pytest.fixture(scope="module", params=["qlora", "torchao pickle"])
def archive_parts(request, tmp_path_factory):
    """(the path of a .pth, its parts by name)."""
    path = WRITERS[request.param](tmp_path_factory.mktemp("archive"))
    with zipfile.ZipFile(path) as archive:
        return path, {part.filename: archive.read(part) for part in archive.infolist()}


@FEW
@given(data=st.data())
def test_a_mutated_pickle_in_a_whole_archive(archive_parts, data):
    """An archive whose checksums are right again, as an attacker's would be."""
    path, parts = archive_parts
    (name,) = [name for name in parts if name.endswith("data.pkl")]
    damaged = bytearray(parts[name])
    places = st.integers(0, len(damaged) - 1)
    for position in data.draw(st.lists(places, min_size=1, max_size=4)):
        damaged[position] = data.draw(st.integers(0, 255))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for part, whole in parts.items():
            archive.writestr(part, bytes(damaged) if part == name else whole)
    refused_or_read(path, content.getvalue())
