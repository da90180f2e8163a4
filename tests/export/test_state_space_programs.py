"""Programs with state spaces (Mamba-2), in place of attention or beside it: text after text, in
pieces and steps."""

import pytest
from executorch.exir._serialize._program import deserialize_pte_binary
from tests.support.comparisons.one_delegate import assert_one_delegate_as_eager
from tests.support.comparisons.planned import assert_as_planned
from tests.support.comparisons.verified import assert_one_number_is_told
from tests.support.devices import DEVICES_OF
from tests.support.models.families import FALCON_H1, GRANITE4_H, NEMOTRON_H
from tests.support.models.kept_state import (
    assert_answers_are_read_anew,
    assert_calls_follow,
    assert_texts_agree,
)
from tests.support.models.peers import int4_checkpoint, random_model
from tests.support.thorough import thorough

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import InputError
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.export.plan.programs import programs_of
from quatrain.export.plan.weightless import weightless_checkpoint
from quatrain.export.vulkan.chunked_delta_rule import CHUNK
from quatrain.program import write_program
from quatrain.program.edit.retarget import retarget
from quatrain.program.edit.slim import slim
from quatrain.runtime.load import load_runner
from quatrain.targets import choose_for_target, examine_file
from quatrain.verify.eager import load_eager

MODELS = {
    "GraniteMoeHybrid": GRANITE4_H | {
        "num_hidden_layers": 2, "layer_types": ["linear_attention", "full_attention"],
        "shared_intermediate_size": 64, "num_key_value_heads": 4, "mamba_n_groups": 1,
    },
    # More layers than are lowered, on Vulkan.
    "FalconH1": FALCON_H1 | {
        "num_hidden_layers": 4, "intermediate_size": 64, "num_key_value_heads": 4,
    },
    # The first layer has no feed-forward.
    "NemotronH": NEMOTRON_H | {
        "layers_block_type": ["linear_attention", "full_attention", "mlp"], "n_groups": 1,
        "num_key_value_heads": 4, "intermediate_size": 64, "mamba_num_heads": 4,
    },
    "FalconH1 of two layers": FALCON_H1 | {
        "num_hidden_layers": 2, "intermediate_size": 64, "num_key_value_heads": 4,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(request, tmp_path_factory):
    """With state spaces of one group in place of attention, or of two groups beside it."""
    folder = tmp_path_factory.mktemp(request.param)
    model = random_model(request.param.partition(" ")[0], **MODELS[request.param])
    return int4_checkpoint(model, folder)


def assert_memory_as_planned(report, checkpoint):
    """What its method takes besides weights, by ExecuTorch's own reading of the file."""
    file = deserialize_pte_binary(report.output.read_bytes())
    (method,) = (plan for plan in file.program.execution_plan if plan.name == "forward")
    weightless = weightless_checkpoint(open_checkpoint(checkpoint))
    (planned,) = programs_of(weightless, [report.options])
    besides = planned.predicted_bytes.memory - planned.predicted_bytes.constants
    assert besides == pytest.approx(sum(method.non_const_buffer_sizes), rel=0.25)


@pytest.mark.parametrize(
    "checkpoint", ["GraniteMoeHybrid", *thorough(["FalconH1", "NemotronH"])], indirect=True
)
def test_one_vulkan_delegate_equals_eager(checkpoint, tmp_path):
    """Weight-only and slim, made of the 8da4w program; that one layer by layer."""
    report = export_checkpoint(checkpoint, tmp_path / "m.pte")
    linears = {f"layers.0.mamba.in_proj_{part}" for part in ("z", "xBC", "dt")}
    program = assert_one_delegate_as_eager(report, checkpoint, linears, probes=20, bound=1e-5)
    assert report.prefill_chunk_size == program.metadata["get_max_seq_len"] == CHUNK
    assert any(note.startswith("State spaces keep only the last state:") for note in report.notes)
    assert_calls_follow(load_runner(report.output, "reference"))
    retarget(program, "weight-only")
    slim(program)
    write_program(program, tmp_path / "float.pte")
    eager = load_eager(checkpoint, "weight-only", ARITHMETIC_OF["vulkan"])
    assert_texts_agree(tmp_path / "float.pte", eager, DEVICES_OF["vulkan"])


@pytest.mark.parametrize(
    "checkpoint",
    ["GraniteMoeHybrid", "FalconH1 of two layers", *thorough(["NemotronH"])],
    indirect=True,
)
def test_xnnpack_equals_eager(checkpoint, tmp_path):
    """In 8da4w, but for what processors round otherwise, where layers like a Llama's are in parts:
    those with attention are not."""
    hybrid = open_checkpoint(checkpoint).config.layer(0).attends
    scheme, bound = ("8da4w", 1e-2) if hybrid else ("weight-only", 1e-5)
    options = ExportOptions(scheme, "xnnpack", allow_fallback=True)
    report = export_checkpoint(checkpoint, tmp_path / "m.pte", options)
    assert_as_planned(report, checkpoint)
    assert_memory_as_planned(report, checkpoint)
    assert any("before 1.5 cannot load it" in note for note in report.notes)
    eager = load_eager(checkpoint, scheme, ARITHMETIC_OF["xnnpack"])
    assert_texts_agree(report.output, eager, DEVICES_OF["xnnpack"], bound)
    assert_calls_follow(load_runner(report.output, "executorch"))
    assert_answers_are_read_anew(report.output)
    assert_one_number_is_told(report.output, checkpoint, "layers.0.mamba.D")
    assert not examine_file(report.output, (), "1.4").passed


@pytest.mark.parametrize("checkpoint", ["GraniteMoeHybrid"], indirect=True)
def test_older_vulkan_runtimes_refuse_before_the_work(checkpoint, tmp_path):
    target = choose_for_target("mali-g715", "1.2")
    with pytest.raises(InputError, match="state spaces, for which ExecuTorch's Vulkan"):
        export_checkpoint(checkpoint, tmp_path / "m.pte", ExportOptions(target=target))
