"""Programs with gated short convolutions: text after text, in pieces and steps."""

import pytest
from tests.support.comparisons.planned import assert_as_planned
from tests.support.comparisons.verified import assert_one_number_is_told
from tests.support.devices import DEVICES_OF
from tests.support.models.kept_state import (
    assert_answers_are_read_anew,
    assert_calls_follow,
    assert_texts_agree,
)
from tests.support.models.peers import random_model, saved

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.program import open_program, write_program
from quatrain.program.edit.retarget import retarget
from quatrain.program.edit.slim import slim
from quatrain.program.inspect.linears import find_linears
from quatrain.program.inspect.sizes import cache_values
from quatrain.quantize.pipeline import quantize_model
from quatrain.runtime.load import load_runner
from quatrain.verify.checks.layerwise import compare_layerwise
from quatrain.verify.eager import load_eager


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lfm2")
    # All linears of one shape: of XNNPACK each shape is lowered.
    model = random_model(
        "Lfm2", num_hidden_layers=2, layer_types=["conv", "full_attention"],
        block_auto_adjust_ff_dim=False, num_key_value_heads=4, intermediate_size=64,
    )  # fmt: skip
    saved(model, folder / "model")
    quantize_model(folder / "model", folder / "int4", embedding="int4", method="rtn")
    return folder / "int4"


@pytest.fixture(scope="module")
def on_vulkan(checkpoint, tmp_path_factory):
    """The report of an export in 8da4w."""
    return export_checkpoint(checkpoint, tmp_path_factory.mktemp("vulkan") / "m.pte")


def test_one_vulkan_delegate_equals_eager(checkpoint, on_vulkan, tmp_path):
    """Weight-only and slim, made of the 8da4w program; that one layer by layer."""
    assert_as_planned(on_vulkan, checkpoint)
    program = open_program(on_vulkan.output)
    assert len(program.delegates) == 1
    names = {linear.name for linear in find_linears(program.vulkan)}
    assert names == {row.name for row in on_vulkan.linears}
    assert "layers.0.conv.x_proj" in names and "layers.1.attention.wq" in names
    caches = sorted(program.vulkan.tensor(i).shape for i in cache_values(program.vulkan))
    assert caches == [(1, 2, 64), (1, 64, 4, 16), (1, 64, 4, 16)]
    eager = load_eager(checkpoint, "8da4w", ARITHMETIC_OF["vulkan"])
    runner = load_runner(on_vulkan.output, "reference")
    compared = compare_layerwise(runner, eager, list(range(9)), 1e-4)
    assert compared.first is None and compared.probes > 25
    retarget(program, "weight-only")
    slim(program)
    write_program(program, tmp_path / "float.pte")
    eager = load_eager(checkpoint, "weight-only", ARITHMETIC_OF["vulkan"])
    assert_texts_agree(tmp_path / "float.pte", eager, DEVICES_OF["vulkan"])


def test_xnnpack_equals_eager(checkpoint, tmp_path):
    options = ExportOptions("weight-only", "xnnpack", allow_fallback=True)
    report = export_checkpoint(checkpoint, tmp_path / "m.pte", options)
    assert_as_planned(report, checkpoint)
    assert any("keep the inputs of the last 2 tokens:" in note for note in report.notes)
    eager = load_eager(checkpoint, "weight-only", ARITHMETIC_OF["xnnpack"])
    assert_texts_agree(report.output, eager, DEVICES_OF["xnnpack"])
    assert_calls_follow(load_runner(report.output, "executorch"))
    assert_answers_are_read_anew(report.output)
    assert_one_number_is_told(report.output, checkpoint, "layers.0.conv.conv.weight")


def test_calls_of_a_vulkan_program_follow_on_each_other(on_vulkan):
    assert_calls_follow(load_runner(on_vulkan.output, "reference"))


def test_the_eager_backbone_says_that_it_cannot_go_back(checkpoint):
    assert not load_eager(checkpoint).rewinds
