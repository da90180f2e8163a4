"""Embeddings that ExecuTorch's exporter would lay out as their kernel does not read them."""

from dataclasses import replace

import pytest
import torch
from tests.support.models.tiny_checkpoint import write_checkpoint

from quatrain.export import ExportOptions, export_checkpoint
from quatrain.export.vulkan import lowering
from quatrain.program import open_program
from quatrain.runtime.reference import ReferenceRunner
from quatrain.targets import choose_for_target

SMALL_IMAGES = replace(
    choose_for_target("mali-g715", "1.5"), partitioner={"texture_limits": (2048,) * 3}
)
# Between one and four times as many rows as a texture may have; from a template, and in full.
CASES = {
    "2,052 rows, small images": (2052, 3, SMALL_IMAGES),
    "20,000 rows": (20_000, 2, None),
}


@pytest.mark.parametrize("case", CASES)
def test_an_embedding_is_width_packed(case, tmp_path, monkeypatch) -> None:
    vocab_size, layers, target = CASES[case]
    monkeypatch.setenv("QUATRAIN_CACHE", str(tmp_path / "cache"))
    repaired = []

    def repair(program):
        repaired.append(lowering_repair(program))
        return repaired[-1]

    lowering_repair = lowering.repair_program
    monkeypatch.setattr(lowering, "repair_program", repair)
    checkpoint = write_checkpoint(
        tmp_path / "c", embedding="fp", vocab_size=vocab_size, n_layers=layers
    )
    options = ExportOptions(scheme="weight-only", activation_dtype="fp16", target=target)
    export_checkpoint(checkpoint, tmp_path / "m.pte", options)
    assert repaired == [1]
    graph = open_program(tmp_path / "m.pte").vulkan
    embedding = next(op for op in graph.operators if op.kind == "aten.embedding")
    for name in ("indices", "out"):
        tensor = graph.tensor(embedding.named_args[name])
        assert (tensor.storage, tensor.layout) == ("texture3d", "width_packed")
    tokens, start = torch.tensor([[3, 17, 2001, 4, 55]]), torch.tensor([0])
    as_written, as_broken = (
        ReferenceRunner(tmp_path / "m.pte", emulate=defect).forward(tokens, start)
        for defect in (None, "embedding-height-packed")
    )
    assert torch.equal(as_written, as_broken)
