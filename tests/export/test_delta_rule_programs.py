"""Programs with gated delta rules, and with experts of which one is every token's, behind a gate:
text after text, in pieces and steps."""

import pytest
from tests.support.devices import DEVICES_OF
from tests.support.kept_state import assert_calls_follow, assert_texts_agree
from tests.support.peers import random_model, saved
from tests.support.planned import assert_as_planned

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.errors import InputError
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.quantize.pipeline import quantize_model
from quatrain.runtime.load import load_runner
from quatrain.verify.eager import load_eager

# What a head reads is normed: where it is near 0, so is what rounding leaves of it.
BOUND = 1e-4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A layer of a Qwen 3.5, and one of its mixtures."""
    folder = tmp_path_factory.mktemp("qwen3_next")
    model = random_model(
        "Qwen3Next", num_hidden_layers=2, layer_types=["linear_attention", "full_attention"],
        decoder_sparse_step=2, num_experts=2, num_experts_per_tok=1, moe_intermediate_size=64,
        shared_expert_intermediate_size=32,
        head_dim=32, num_attention_heads=2, linear_num_key_heads=1, linear_num_value_heads=2,
        linear_key_head_dim=32, linear_value_head_dim=32, intermediate_size=64,
    )  # fmt: skip
    saved(model, folder / "model")
    quantize_model(folder / "model", folder / "int4", embedding="int4", method="rtn")
    return folder / "int4"


def test_vulkan_refuses_before_the_work(checkpoint, tmp_path):
    with pytest.raises(InputError, match="gated delta rule, which is not yet exported"):
        export_checkpoint(checkpoint, tmp_path / "m.pte")


def test_xnnpack_equals_eager(checkpoint, tmp_path):
    options = ExportOptions("weight-only", "xnnpack", allow_fallback=True)
    report = export_checkpoint(checkpoint, tmp_path / "m.pte", options)
    assert_as_planned(report, checkpoint)
    assert any("the last state is kept" in note for note in report.notes)
    eager = load_eager(checkpoint, "weight-only", ARITHMETIC_OF["xnnpack"])
    assert_texts_agree(report.output, eager, DEVICES_OF["xnnpack"], BOUND)
    assert_calls_follow(load_runner(report.output, "executorch"))
