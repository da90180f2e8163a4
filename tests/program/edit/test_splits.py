"""Splits, whose parts a phone does not cut to a call's length, and the slices in their place."""

import torch
from tests.support.kernel_defects import split

from quatrain.program import open_program
from quatrain.program.edit.retarget_file import retarget_file
from quatrain.program.memory import memory_conflicts
from quatrain.runtime.reference import ReferenceRunner


def test_repair_makes_slices_that_give_the_parts(tmp_path) -> None:
    report = retarget_file(split()(tmp_path), tmp_path / "fixed.pte", repair=True)
    assert (report.repaired_splits, report.repaired_embeddings) == (1, 0)
    graph = open_program(report.output).vulkan
    assert [operator.kind for operator in graph.operators] == [
        "sym_size", "aten.slice_copy", "aten.slice_copy", "aten.cat",
    ]  # fmt: skip
    assert memory_conflicts(graph) == []
    x = torch.randn(1, 3, 12)
    found = ReferenceRunner(report.output).forward(x)
    assert found.equal(torch.cat(x.split([4, 8], dim=-1)[::-1], dim=-1))
