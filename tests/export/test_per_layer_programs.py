"""Models with an embedding for each layer (Gemma 3n and 4): what is exported and refused."""

import pytest
import torch
from tests.support.comparisons.planned import assert_as_planned
from tests.support.comparisons.verified import assert_verified
from tests.support.devices import DEVICES_OF
from tests.support.models.families import GEMMA3N, GEMMA4
from tests.support.models.peers import (
    TOLERANCE,
    exact_logits,
    random_model,
    random_tokens,
    relative_error,
    saved,
)

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.backbone.build import build_backbone
from quatrain.backbone.layer_by_layer import LayerByLayer
from quatrain.checkpoint.open import open_checkpoint, open_float_model
from quatrain.errors import InputError
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.int4 import Scheme
from quatrain.program import open_program, write_program
from quatrain.program.edit.retarget import retarget
from quatrain.program.plan.row_lookup import row_lookup
from quatrain.quantize.pipeline import quantize_model
from quatrain.runtime.load import load_runner
from quatrain.targets import fatal_findings
from quatrain.targets.triggers.method_triggers import work_outside_delegate
from quatrain.verify.eager import load_eager

# Linears of few shapes: of XNNPACK each shape is lowered.
FIELDS = GEMMA4 | {
    "num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_kv_shared_layers": 2, "use_double_wide_mlp": True, "num_key_value_heads": 4,
    "intermediate_size": 64, "hidden_size_per_layer_input": 64,
}  # fmt: skip
STREAMS = GEMMA3N | {
    "num_hidden_layers": 4, "layer_types": ["sliding_attention", "full_attention"] * 2,
    "num_key_value_heads": 4, "intermediate_size": 64, "hidden_size_per_layer_input": 64,
    "laurel_rank": 64, "activation_sparsity_pattern": [0.95, 0.0, 0.0, 0.0],
}  # fmt: skip
CALLS = ((0, 13), (13, 14), (14, 20))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(a model of transformers, the folder that it was saved to)"""
    made = random_model("Gemma4", **FIELDS)
    made.set_attn_implementation("eager")
    return made, saved(made, tmp_path_factory.mktemp("gemma4") / "model")


@pytest.fixture(scope="module")
def checkpoint(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gemma4") / "int4"
    quantize_model(model[1], folder, method="rtn")
    return folder


def test_layer_by_layer(model):
    opened, tokens = open_float_model(model[1]), random_tokens(20)
    layers = LayerByLayer(opened.config, opened.tensors)
    ours = layers.ends.logits(layers.hidden(tokens))
    assert relative_error(ours, exact_logits(model[0], tokens)) < TOLERANCE


def test_the_table_is_int4_and_has_groups_of_its_own(checkpoint):
    stored = open_checkpoint(checkpoint).tensors.stored
    table, scales = (stored[f"per_layer.embeddings.{part}"] for part in ("weight", "scales"))
    assert (table.shape, table.dtype, scales.shape) == ((96, 256), torch.int8, (96, 8))


def test_a_table_in_floating_point_is_refused_on_vulkan(model, tmp_path):
    quantize_model(model[1], tmp_path / "fp", method="rtn", embedding="fp")
    message = r"per_layer_dim.*96 x 256.*in floating point.*without --embedding fp"
    with pytest.raises(InputError, match=message):
        export_checkpoint(tmp_path / "fp", tmp_path / "m.pte")


@pytest.fixture(scope="module")
def on_vulkan(checkpoint, tmp_path_factory):
    """The report of an export in 8da4w."""
    return export_checkpoint(checkpoint, tmp_path_factory.mktemp("vulkan") / "m.pte")


def test_vulkan_is_one_delegate_that_is_given_rows_of_the_table(checkpoint, on_vulkan, tmp_path):
    """Weight-only, retargeted, equals eager beyond the window, in pieces and steps; layers that
    read others' keys read those of the call, which no ring holds any more."""
    assert_as_planned(on_vulkan, checkpoint)
    assert_verified(on_vulkan.output, checkpoint)
    program = open_program(on_vulkan.output)
    assert program.calls_outside_delegates() == {"quantized_decomposed.embedding_4bit.out": 1}
    assert len(program.delegates) == 1 and not list(work_outside_delegate(program))
    shapes = [program.vulkan.tensor(value).shape for value in program.vulkan.inputs]
    assert sorted(shapes) == [(1,), (1, 64), (1, 64, 256)]
    kinds = [operator.kind for operator in program.vulkan.operators]
    assert sum("embedding" in kind for kind in kinds) == 1  # of the tokens themselves
    retarget(program, "weight-only")
    write_program(program, tmp_path / "float.pte")
    eager = load_eager(checkpoint, Scheme.WEIGHT_ONLY, ARITHMETIC_OF["vulkan"])
    for device in DEVICES_OF["vulkan"]:
        _assert_equals_eager(load_runner(tmp_path / "float.pte", device), eager)


def test_a_token_without_a_row_is_refused(on_vulkan):
    for device in DEVICES_OF["vulkan"]:
        with pytest.raises(InputError, match="token 96 "):
            load_runner(on_vulkan.output, device).forward(torch.tensor([[96]]), torch.tensor([0]))


@pytest.mark.parametrize(
    ("argument", "field", "value", "message"),
    [
        (3, "int_val", 0, "integers from 0 to 7"),
        (4, "int_val", 15, "integers from -8 to 15"),
        (1, "scalar_type", 5, "ScalarType 5, expected float32"),
    ],
)
def test_a_lookup_of_another_kind_is_refused(argument, field, value, message, on_vulkan):
    """It would be read as what it is not."""
    program = open_program(on_vulkan.output)
    (plan,) = [plan for plan in program.root.execution_plan if plan.delegates]
    setattr(plan.values[program.instructions[0].args[argument]].val, field, value)
    with pytest.raises(InputError, match=message):
        row_lookup(program)


def test_embeddings_as_its_input_are_refused(checkpoint):
    opened = open_checkpoint(checkpoint)
    with pytest.raises(InputError, match="needs token ids"):
        build_backbone(opened.config, opened.tensors, embedding_input=True)


@pytest.mark.thorough
def test_xnnpack_equals_eager(checkpoint, tmp_path):
    """Beyond the window, in pieces and steps."""
    options = ExportOptions(Scheme.WEIGHT_ONLY, "xnnpack", allow_fallback=True)
    export_checkpoint(checkpoint, tmp_path / "m.pte", options)
    eager = load_eager(checkpoint, Scheme.WEIGHT_ONLY, ARITHMETIC_OF["xnnpack"])
    _assert_equals_eager(load_runner(tmp_path / "m.pte", "executorch"), eager)


@pytest.mark.thorough
@pytest.mark.parametrize("backend", ["vulkan", "xnnpack"])
def test_programs_of_several_streams(backend, tmp_path):
    saved(random_model("Gemma3n", **STREAMS), tmp_path / "model")
    quantize_model(tmp_path / "model", tmp_path / "int4", method="rtn")
    options = ExportOptions(Scheme.WEIGHT_ONLY, backend, allow_fallback=backend == "xnnpack")
    report = export_checkpoint(tmp_path / "int4", tmp_path / "m.pte", options)
    if backend == "vulkan":
        assert not fatal_findings(open_program(report.output))
    assert_verified(report.output, tmp_path / "int4")
    eager = load_eager(tmp_path / "int4", Scheme.WEIGHT_ONLY, ARITHMETIC_OF[backend])
    for device in DEVICES_OF[backend]:
        _assert_equals_eager(load_runner(report.output, device), eager)


def _assert_equals_eager(runner, eager):
    tokens = random_tokens(20)
    for start, end in CALLS:
        call = tokens[:, start:end], torch.tensor([start])
        found, expected = (each.forward(*call).reshape(-1) for each in (runner, eager))
        assert relative_error(found, expected) < TOLERANCE, start
