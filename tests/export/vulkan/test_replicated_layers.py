"""Programs from a template equal fully lowered ones, operator for operator and byte for byte."""

import pytest
import torch
from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import to_edge_transform_and_lower
from tests.support.comparisons.planned import assert_as_planned
from tests.support.models.tiny_checkpoint import QWEN_LIKE, write_checkpoint
from tests.support.thorough import thorough

from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.open import open_checkpoint
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.export.lowering.compiler_shortcuts import compiler_shortcuts
from quatrain.export.lowering.executorch_internals import edge_config
from quatrain.export.lowering.tracing import EXECUTORCH_CONFIG, trace
from quatrain.export.metadata import metadata_methods
from quatrain.export.vulkan.lowering import write_vulkan_program
from quatrain.export.vulkan.operator_modules import to_vulkan_operators
from quatrain.export.vulkan.packed_layers import pack_layers
from quatrain.int4 import Scheme
from quatrain.program import open_program
from quatrain.program.edit.fewer_dispatches import reduce_dispatches
from quatrain.program.edit.replicated_layers import canonical
from quatrain.program.inspect.linears import find_linears
from quatrain.quiet import quiet
from quatrain.release.tasks import functions
from quatrain.runtime.reference import ReferenceRunner
from quatrain.stages import Stages

CASES = {
    "plain 8da4w": (ExportOptions(), 4, "int8", {}),
}
THOROUGH = {
    "weight-only in fp16, biases, query and key norm, int4 embedding": (
        ExportOptions(scheme="weight-only", activation_dtype="fp16"), 4, "int4", QWEN_LIKE,
    ),
    "weight-only, biases, query and key norm, int4 embedding": (
        ExportOptions(scheme="weight-only"), 4, "int4", QWEN_LIKE,
    ),
    "plain weight-only": (ExportOptions(scheme="weight-only"), 4, "int8", {}),
    "8da4w in fp16": (ExportOptions(activation_dtype="fp16"), 4, "int4", {}),
}  # fmt: skip


def build(checkpoint, options):
    """The backbone as the exporter has it before lowering, and the program's metadata."""
    opened = open_checkpoint(checkpoint)
    backbone = build_backbone(opened.config, opened.tensors, options.scheme)
    metadata = metadata_methods(backbone, opened.params, "vulkan")
    to_vulkan_operators(backbone)
    return backbone, metadata


def same_constants(one, other):
    # Keys are digests of the bytes, so equal constants are the same bytes.
    assert set(one.named_data) == set(other.named_data)
    for key in one.named_data:
        assert one.named_bytes(key) == other.named_bytes(key)


@pytest.mark.parametrize("case", [*CASES, *thorough(THOROUGH)])
def test_replicated_equals_lowered_in_full(case, tmp_path):
    options, depth, embedding, params = (CASES | THOROUGH)[case]
    checkpoint = write_checkpoint(tmp_path / "c", embedding=embedding, n_layers=depth, **params)
    report = export_checkpoint(checkpoint, tmp_path / "replicated.pte", options)
    assert not [note for note in report.notes if "lowered separately" in note]
    warned = any("before 1.4 this 8da4w program generates garbage" in note for note in report.notes)
    assert_as_planned(report, checkpoint)
    half = options.activation_dtype == "fp16"
    assert warned == (options.scheme == Scheme.DYNAMIC_INT8 and half)
    stored = {linear.zero_points for linear in find_linears(open_program(report.output).vulkan)}
    assert stored - {None} <= {"float16" if half else "int8"}

    backbone, metadata = build(checkpoint, options)
    full = tmp_path / "full.pte"
    pack_layers(backbone, options.compile_options)
    write_vulkan_program(backbone, options.compile_options, metadata, full, Stages())
    replicated, lowered = open_program(tmp_path / "replicated.pte"), open_program(full)
    assert canonical(replicated.vulkan) == canonical(lowered.vulkan)
    assert replicated.metadata == lowered.metadata
    same_constants(replicated, lowered)


def lower_eager_linears(backbone, path):
    """Let ExecuTorch find and fuse the linears itself, in the graph of the eager modules.

    One layer is enough: what is lowered in full is what a template gives, as seen above.
    """
    with quiet(), compiler_shortcuts():
        edge = to_edge_transform_and_lower(
            trace(backbone, backbone.config.max_seq_len),
            partitioner=[VulkanPartitioner({})],
            compile_config=edge_config(),
        )
        with path.open("wb") as file:
            edge.to_executorch(EXECUTORCH_CONFIG).write_to_file(file)


@pytest.mark.parametrize("scheme", ["8da4w", *thorough(["weight-only"])])
def test_equals_what_executorch_fuses_itself(scheme, tmp_path):
    options = ExportOptions(scheme=scheme)
    checkpoint = write_checkpoint(
        tmp_path / "c", embedding="fp", n_layers=1, attention_qkv_bias=True
    )
    export_checkpoint(checkpoint, tmp_path / "ours.pte", options)
    lower_eager_linears(build(checkpoint, options)[0], tmp_path / "theirs.pte")
    ours, theirs = (open_program(tmp_path / f"{name}.pte") for name in ("ours", "theirs"))
    same_constants(ours, theirs)
    # Theirs chooses parameters once per linear and in decode too, and views some products in the
    # shape that they have already: that made lean, nothing differs.
    reduce_dispatches(theirs.vulkan)
    chains = [[op.name for op in program.vulkan.operators] for program in (ours, theirs)]
    assert chains[0] == chains[1]
    logits = [
        ReferenceRunner(program).forward(torch.tensor([[5, 6, 7]]), torch.tensor([0]))
        for program in (ours, theirs)
    ]
    assert torch.equal(*logits)


def test_one_template_serves_both_schemes_and_other_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("QUATRAIN_CACHE", str(tmp_path / "cache"))
    export_checkpoint(write_checkpoint(tmp_path / "a"), tmp_path / "a.pte")
    for scheme in ("8da4w", "weight-only"):
        checkpoint = write_checkpoint(tmp_path / scheme, seed=1)
        report = export_checkpoint(checkpoint, tmp_path / "b.pte", ExportOptions(scheme=scheme))
        assert "lower to Vulkan" not in report.seconds
    assert len(list((tmp_path / "cache" / "templates").iterdir())) == 1


def test_the_same_input_gives_the_same_bytes(tmp_path):
    """In a release too, which hears what part of the weights is packed."""
    checkpoint, heard = write_checkpoint(tmp_path / "c"), []
    export_checkpoint(checkpoint, tmp_path / "a.pte", ExportOptions())
    functions.export(tmp_path, checkpoint, ExportOptions(), None, heard.append)
    assert (tmp_path / "a.pte").read_bytes() == (tmp_path / "model.pte").read_bytes()
    assert len(heard) > 2 and heard == sorted(heard) and 0.5 < heard[0] < heard[-1] == 1


def test_two_layers_are_lowered_in_full_and_said_so(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "c", n_layers=2)
    report = export_checkpoint(checkpoint, tmp_path / "m.pte")
    assert any("Every layer was lowered separately" in note for note in report.notes)
    assert {row.kernel for row in report.linears} == {"et_vk.linear_dq8ca_q4gsw"}
