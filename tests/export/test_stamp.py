"""Stamped programs equal fully lowered ones, operator for operator and byte for byte."""

import pytest
from tiny_checkpoint import write_checkpoint

from quatrain.backbone.build import build_backbone
from quatrain.checkpoint import open_checkpoint
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.export.metadata import metadata_methods
from quatrain.export.operators import to_vulkan_operators
from quatrain.export.stamp import canonical
from quatrain.export.vulkan import write_vulkan_program
from quatrain.program import open_program
from quatrain.stages import Stages

QWEN_LIKE = {"use_hf_rope": True, "attention_qkv_bias": True, "use_qk_norm": True}
CASES = {
    "plain 8da4w": (ExportOptions(), 5, "int8", {}),
    "weight-only, biases, query and key norm, int4 embedding": (
        ExportOptions(scheme="weight-only"), 4, "int4", QWEN_LIKE,
    ),
    "8da4w in fp16": (ExportOptions(activation_dtype="fp16"), 4, "int4", {}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_stamped_equals_lowered_in_full(case, tmp_path):
    options, depth, embedding, params = CASES[case]
    checkpoint = write_checkpoint(tmp_path / "c", embedding=embedding, n_layers=depth, **params)
    report = export_checkpoint(checkpoint, tmp_path / "stamped.pte", options)
    assert not [note for note in report.notes if "lowered by itself" in note]

    opened = open_checkpoint(checkpoint)
    backbone = build_backbone(opened.config, opened.tensors, options.scheme)
    metadata = metadata_methods(backbone, opened.params)
    to_vulkan_operators(backbone)
    full = tmp_path / "full.pte"
    write_vulkan_program(backbone, options.activation_dtype, metadata, full, Stages())

    stamped, lowered = open_program(tmp_path / "stamped.pte"), open_program(full)
    assert canonical(stamped.vulkan) == canonical(lowered.vulkan)
    assert stamped.metadata == lowered.metadata
    # Keys are digests of the bytes, so equal constants are the same bytes.
    assert set(stamped.named_data) == set(lowered.named_data)
    for key in stamped.named_data:
        assert stamped.named_bytes(key) == lowered.named_bytes(key)


def test_the_same_input_gives_the_same_bytes(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "c")
    for name in ("a.pte", "b.pte"):
        export_checkpoint(checkpoint, tmp_path / name)
    assert (tmp_path / "a.pte").read_bytes() == (tmp_path / "b.pte").read_bytes()


def test_two_layers_are_lowered_in_full_and_said_so(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "c", n_layers=2)
    report = export_checkpoint(checkpoint, tmp_path / "m.pte")
    assert any("Every layer was lowered by itself" in note for note in report.notes)
    assert {row.kernel for row in report.linears} == {"et_vk.linear_dq8ca_q4gsw"}
