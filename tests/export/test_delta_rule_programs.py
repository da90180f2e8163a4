"""Programs with gated delta rules, and with experts of which one is every token's, behind a gate:
text after text, in pieces and steps."""

from dataclasses import replace

import pytest
from tests.support.comparisons.one_delegate import assert_one_delegate_as_eager
from tests.support.comparisons.planned import assert_as_planned
from tests.support.comparisons.verified import wrong_beside
from tests.support.devices import DEVICES_OF
from tests.support.models.kept_state import (
    assert_answers_are_read_anew,
    assert_calls_follow,
    assert_texts_agree,
)
from tests.support.models.peers import int4_checkpoint, random_model

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.errors import InputError
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.export.vulkan.chunked_delta_rule import CHUNK
from quatrain.program import Operator, open_program, write_program
from quatrain.program.edit.retarget import retarget
from quatrain.program.edit.slim import slim
from quatrain.program.inspect.linears import find_linears
from quatrain.release.plan import plan_release
from quatrain.release.spec import ReleaseSpec
from quatrain.runtime.load import load_runner
from quatrain.targets import choose_for_target, examine_file
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
    return int4_checkpoint(model, folder)


def test_one_vulkan_delegate_equals_eager(checkpoint, tmp_path):
    """Weight-only and slim, made of the 8da4w program; that one layer by layer."""
    report = export_checkpoint(checkpoint, tmp_path / "m.pte")
    linears = {"layers.0.attention.in_proj_a", "layers.0.attention.out_proj"}
    program = assert_one_delegate_as_eager(report, checkpoint, linears, probes=15, bound=BOUND)
    assert report.prefill_chunk_size == program.metadata["get_max_seq_len"] == CHUNK
    names = {linear.name for linear in find_linears(laid_out_otherwise(report.output))}
    assert names == {row.name for row in report.linears}
    assert_calls_follow(load_runner(report.output, "reference"))
    assert_answers_are_read_anew(report.output)
    retarget(program, "weight-only")
    slim(program)
    write_program(program, tmp_path / "float.pte")
    eager = load_eager(checkpoint, "weight-only", ARITHMETIC_OF["vulkan"])
    assert_texts_agree(tmp_path / "float.pte", eager, DEVICES_OF["vulkan"], BOUND)


def laid_out_otherwise(path):
    """The graph of a program, where each product takes what goes from a texture to a buffer, as
    where the output layer is wide."""
    graph = open_program(path).vulkan
    operators = []
    for operator in graph.operators:
        args = list(operator.args)
        if operator.kind == "aten.bmm":
            args[1] = graph.add(graph.tensor(args[1]))
            operators.append(Operator("aten.clone.default", (operator.args[1], args[1])))
        operators.append(replace(operator, args=tuple(args)))
    graph.operators = operators
    return graph


def test_older_vulkan_runtimes_refuse_before_the_work(checkpoint, tmp_path):
    target = choose_for_target("mali-g715", "1.2")
    with pytest.raises(InputError, match="gated delta rules, for which ExecuTorch's Vulkan"):
        export_checkpoint(checkpoint, tmp_path / "m.pte", ExportOptions(target=target))


def _exchange_numbers_of_heads(tensors):
    names = [f"layers.0.attention.{name}" for name in ("A_log", "dt_bias")]
    for name, tensor in zip(names, [tensors[name] for name in names[::-1]], strict=True):
        tensors[name] = tensor


def test_xnnpack_equals_eager(checkpoint, tmp_path):
    options = ExportOptions("weight-only", "xnnpack", allow_fallback=True)
    report = export_checkpoint(checkpoint, tmp_path / "m.pte", options)
    assert_as_planned(report, checkpoint)
    kept = "keep only the last state: "
    assert any(kept in one and "before 1.5 cannot" in one for one in report.notes)
    eager = load_eager(checkpoint, "weight-only", ARITHMETIC_OF["xnnpack"])
    assert_texts_agree(report.output, eager, DEVICES_OF["xnnpack"], BOUND)
    assert_calls_follow(load_runner(report.output, "executorch"))
    wrong = wrong_beside(report.output, checkpoint, _exchange_numbers_of_heads)
    assert wrong == ["layers.0.attention.dt_bias"]
    asked = [examine_file(report.output, (), runtime) for runtime in (None, "1.5", "1.4")]
    assert [one.passed for one in asked] == [True, True, False]
    why = "runtime 1.4 lacks llama.gated_delta_rule, which came with 1.5"
    assert asked[-1].cpu.lacking == [why]
    with pytest.raises(InputError, match=f"no program for the CPU can be made: {why}"):
        plan_release(checkpoint, "m", ReleaseSpec(runtime="1.4"))
