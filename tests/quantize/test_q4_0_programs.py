"""A Q4_0 file as ggml writes it, all the way: weights stay the file's, or it is said."""

from functools import partial

import gguf
import pytest
import torch
from safetensors.torch import load_file
from tests.support.comparisons.rounding import follows_but_for_rounding
from tests.support.devices import DEVICES_OF
from tests.support.formats import gguf_files as ggufs
from tests.support.models import tiny_models as tiny
from tests.support.models.tiny_checkpoint import FEW_SHAPES

from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.quantize.convert_options import ConvertOptions
from quatrain.quantize.pipeline import convert_model, quantize_model
from quatrain.verify.verify import verify_program

LAYERS = 4  # so that the middle ones are replicated
INT4 = ("tok_embeddings", "output", "attention.w", "feed_forward.w")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    tensors = tiny.float_tensors(n_layers=LAYERS, **FEW_SHAPES)
    return ggufs.write_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf", tensors, kind="Q4_0")


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("int4") / "c"
    report = quantize_model(model, folder, method="rtn")
    assert 0.3 < report.negative_scales / report.exact_groups < 0.7
    assert set(report.relative_rms_error_by_part.values()) == {0.0}
    return folder


def assert_the_files_own(model, checkpoint):
    """Each matrix is what the gguf package makes of the file's, bit for bit."""
    source, opened = open_float_model(model), open_checkpoint(checkpoint)
    opened.check_values()
    linears = [name for name in source.tensors if any(part in name for part in INT4)]
    assert len(linears) == 2 + LAYERS * 7
    assert (opened.embedding_kind, opened.output_kind) == ("int4", "int4")
    for name in linears:
        values, scales = opened.tensors[name], opened.tensors[name.replace("weight", "scales")]
        found = (values.view(*scales.shape, 32) * scales[..., None]).view(values.shape)
        assert torch.equal(found, source.tensors[name]), name


def test_quantize_keeps_every_weight(model, checkpoint):
    assert_the_files_own(model, checkpoint)


def test_what_is_read_is_what_the_gguf_package_reads(model):
    source = open_float_model(model).tensors
    tensor = next(t for t in gguf.GGUFReader(model).tensors if t.name == "blk.1.ffn_down.weight")
    expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
    assert torch.equal(source["layers.1.feed_forward.w2.weight"], torch.from_numpy(expected))


def test_convert_keeps_every_weight_and_says_so(model, checkpoint, tmp_path):
    report = convert_model(model, tmp_path / "c")
    assert report.rounded == 0
    assert_the_files_own(model, tmp_path / "c")
    ours, theirs = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "c", checkpoint)
    )
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_other_groups_or_an_int8_embedding_are_rounded_and_counted(model, tmp_path):
    assert convert_model(model, tmp_path / "a", ConvertOptions(embedding="int8")).rounded == 1
    report = quantize_model(model, tmp_path / "b", embedding="int8", method="rtn")
    assert report.relative_rms_error_by_part["embedding"] > 0
    assert report.relative_rms_error_by_part["layers"] == 0


def test_torchao_reads_the_same_weights(model, checkpoint):
    from torchao.quantization.linear_quant_modules import Int8DynActInt4WeightLinear
    from torchao.quantization.quant_primitives import dequantize_affine

    name = "layers.0.attention.wo"
    stored = open_checkpoint(checkpoint).tensors
    theirs = Int8DynActInt4WeightLinear(64, 64, bias=False, groupsize=32)
    tensors = {"weight": stored[f"{name}.weight"], "scales": stored[f"{name}.scales"]}
    theirs.load_state_dict(tensors | {"zeros": torch.zeros(64, 2)})
    assert bool((theirs.scales < 0).any())
    weight = dequantize_affine(theirs.weight, (1, 32), theirs.scales, None, torch.int8, -8, 7)
    assert torch.equal(weight, open_float_model(model).tensors[f"{name}.weight"])


@pytest.mark.parametrize("scheme", ["8da4w", "weight-only"])
def test_vulkan_programs_hold_the_files_weights(checkpoint, tmp_path, scheme):
    program = tmp_path / "m.pte"
    report = export_checkpoint(checkpoint, program, ExportOptions(scheme=scheme))
    assert all(note.startswith("On a Mali") for note in report.notes)  # of no rounding
    verify = partial(verify_program, program, checkpoint, prompts=("hello 123",), new_tokens=4)
    verified = verify(devices=DEVICES_OF["vulkan"])
    assert verified.passed and not verified.notes
    # By verify's own reading, integers, sums and scales are equal.
    names = [one.name for one in verified.packed if not one.name.endswith(".weight")]
    assert sum(name.startswith("layers.") for name in names) == LAYERS * 7
    assert {"output", "tok_embeddings"} <= {*names}
    assert follows_but_for_rounding(verified, partial(verify, devices=("reference",)))


def test_xnnpack_says_what_it_rounds_and_computes_that(checkpoint, tmp_path):
    program = tmp_path / "m.pte"
    report = export_checkpoint(
        checkpoint, program, ExportOptions(backend="xnnpack", max_seq_len=64)
    )
    (note,) = [note for note in report.notes if "need positive scales" in note]
    assert "are requantized" in note and "relative RMS" in note
    verified = verify_program(program, checkpoint, ("executorch",), ("hello 123",), new_tokens=4)
    assert verified.passed
    assert "need positive scales" in verified.notes[-1]
