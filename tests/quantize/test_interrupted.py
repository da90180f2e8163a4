"""Stopped half way, by Ctrl-C or a full disk: `convert` goes on where it was, `quantize` leaves
nothing."""

import errno
import os
import subprocess
import sys

import pytest
import torch
from tests.support.formats import gguf_files as ggufs
from tests.support.formats import quantized_folders as folders
from tests.support.models import tiny_models as tiny

from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import InputError
from quatrain.quantize.convert_options import ConvertOptions
from quatrain.quantize.output.resumable import ResumableFile, held_alone, working_folder
from quatrain.quantize.pipeline import convert_model, quantize_model

WQ = "layers.0.attention.wq"


class Interrupted(BaseException):
    pass


@pytest.mark.parametrize("stop_after", [0, 1, 2, 7, 21])
def test_an_interrupted_conversion_goes_on(tmp_path, monkeypatch, stop_after):
    zeros = {WQ: torch.full((64, 2), 3)}
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


def test_another_conversion_to_the_same_folder_is_left_alone(tmp_path):
    source = folders.write_quantized(tmp_path / "in", "gptq")
    kept = working_folder(tmp_path / "out")
    with held_alone(tmp_path / "out", kept):
        with pytest.raises(InputError, match=r"out: another process is writing this folder"):
            convert_model(source, tmp_path / "out")
        assert kept.is_dir()
    convert_model(source, tmp_path / "out")


def test_what_another_version_wrote_is_thrown_away(tmp_path, monkeypatch):
    source = folders.write_quantized(tmp_path / "in", "gptq")
    interrupted_conversion(monkeypatch, source, tmp_path / "out")
    monkeypatch.setattr("quatrain.quantize.pipeline.version", lambda _: "0.0.0")
    assert convert_model(source, tmp_path / "out").resumed_at == 0


def test_the_tokenizer_of_another_source_is_thrown_away(tmp_path, monkeypatch):
    interrupted_conversion(monkeypatch, ggufs.write_gguf(tmp_path / "m.gguf"), tmp_path / "out")
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
    with pytest.raises(InputError, match=r"cannot be written: [^.]*\. Choose another folder\."):
        convert_model(source, tmp_path / "file" / "out")


CTRL_C = """
from quatrain.cli import main
from quatrain.quantize import opened_source
from quatrain.quantize.output.resumable import ResumableFile

def interrupt(*_):
    raise KeyboardInterrupt

{patched} = interrupt
main()
"""


@pytest.mark.parametrize(
    ("patched", "said"),
    [
        ("ResumableFile.append", "interrupted; the same command resumes the work, which"),
        ("opened_source.source_files", "interrupted; nothing half written is left"),
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


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that is full after ten steps."""

    def append(self, chunks, carried):
        if self.done == 10:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(self, chunks, carried)

    original = ResumableFile.append
    monkeypatch.setattr(ResumableFile, "append", append)


def test_a_full_disk_is_gone_on_from(tmp_path, full_disk, monkeypatch):
    source = folders.write_quantized(tmp_path / "in", "gptq")
    with pytest.raises(
        InputError, match=r"cannot be written: No space left.*run the command again, which resumes"
    ):
        convert_model(source, tmp_path / "out")
    assert {file.name for file in tmp_path.iterdir()} == {"in", ".out.converting"}
    monkeypatch.undo()
    assert convert_model(source, tmp_path / "out").resumed_at == 9
    open_checkpoint(tmp_path / "out").check_values()


def test_a_full_disk_leaves_nothing_of_what_is_not_gone_on_with(tmp_path, full_disk):
    source = tiny.write_meta(tmp_path / "in")
    with pytest.raises(InputError, match=r"cannot be written: No space left.*Nothing was changed"):
        quantize_model(source, tmp_path / "out", method="rtn")
    assert [file.name for file in tmp_path.iterdir()] == ["in"]


def test_an_interrupted_report_is_the_whole_ones(tmp_path, full_disk, monkeypatch):
    """What rounding changed before the interruption counts too, and what was kept exactly."""
    source = ggufs.write_gguf(tmp_path / "m.gguf", kind="Q4_0")
    options = ConvertOptions(embedding="int8")
    with pytest.raises(InputError, match="No space left"):
        convert_model(source, tmp_path / "out", options)
    monkeypatch.undo()
    report = convert_model(source, tmp_path / "out", options)
    whole = convert_model(source, tmp_path / "whole", options)
    assert (report.resumed_at, whole.resumed_at) == (18, 0)
    assert report.rounded == 1 and report.exact_groups > report.negative_scales > 0
    for name in ("tensors", "rounded", "relative_rms_error", "relative_rms_error_by_part",
                 "exact_groups", "negative_scales", "bytes_out", "weights_bytes"):  # fmt: skip
        assert getattr(report, name) == getattr(whole, name), name
