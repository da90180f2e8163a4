"""Programs with gated short convolutions: text after text, in pieces and steps."""

import pytest
from tests.support.comparisons.one_delegate import assert_one_delegate_as_eager
from tests.support.comparisons.planned import assert_as_planned
from tests.support.comparisons.verified import assert_one_number_is_told
from tests.support.devices import DEVICES_OF
from tests.support.models.kept_state import (
    assert_answers_are_read_anew,
    assert_calls_follow,
    assert_texts_agree,
)
from tests.support.models.peers import int4_checkpoint, random_model

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.program import write_program
from quatrain.program.edit.retarget import retarget
from quatrain.program.edit.slim import slim
from quatrain.program.inspect.sizes import cache_values
from quatrain.runtime.load import load_runner
from quatrain.verify.eager import load_eager


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lfm2")
    # All linears of one shape: of XNNPACK each shape is lowered.
    model = random_model(
        "Lfm2", num_hidden_layers=2, layer_types=["conv", "full_attention"],
        block_auto_adjust_ff_dim=False, num_key_value_heads=4, intermediate_size=64,
    )  # fmt: skip
    return int4_checkpoint(model, folder)


@pytest.fixture(scope="module")
def on_vulkan(checkpoint, tmp_path_factory):
    """The report of an export in 8da4w."""
    return export_checkpoint(checkpoint, tmp_path_factory.mktemp("vulkan") / "m.pte")


def test_one_vulkan_delegate_equals_eager(checkpoint, on_vulkan, tmp_path):
    """Weight-only and slim, made of the 8da4w program; that one layer by layer."""
    linears = {"layers.0.conv.x_proj", "layers.1.attention.wq"}
    program = assert_one_delegate_as_eager(on_vulkan, checkpoint, linears, probes=25)
    caches = sorted(program.vulkan.tensor(i).shape for i in cache_values(program.vulkan))
    assert caches == [(1, 2, 64), (1, 64, 4, 16), (1, 64, 4, 16)]
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
