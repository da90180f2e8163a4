"""Operators whose results a phone does not cut to a call's length, and what stands in for them."""

import pytest
import torch
from tests.support.defects.size_defects import converted, embedded, split, squeeze

from quatrain.program import open_program
from quatrain.program.edit.retarget_file import retarget_file
from quatrain.program.vulkan.memory import memory_conflicts
from quatrain.runtime.reference import ReferenceRunner

CASES = [
    (split(), ["slice_copy", "slice_copy", "cat"], (1, 3, 12),
     lambda x: torch.cat(x.split([4, 8], dim=-1)[::-1], dim=-1)),
    (squeeze(0), ["select_copy"], (1, 1, 3, 4), lambda x: x.squeeze(0)),
    (embedded("channels_packed"), ["embedding", "sym_size", "slice_copy"], (1, 3),
     lambda tokens: torch.arange(192.0).view(16, 12)[tokens.long()]),
    (converted("float32"), ["_to_copy", "sym_size", "slice_copy", "sigmoid"], (1, 3, 12),
     lambda x: x.half().float().sigmoid()),
    (converted("float16"), ["clone", "sigmoid"], (1, 3, 12), lambda x: x.half().sigmoid()),
    (converted("float16", "buffer"), ["clone", "sigmoid"], (1, 3, 12),
     lambda x: x.half().sigmoid()),
    (converted("float32", "buffer"), ["dim_order_ops._to_dim_order_copy", "sigmoid"], (1, 3, 12),
     lambda x: x.half().float().sigmoid()),
]  # fmt: skip


@pytest.mark.parametrize(("make", "kinds", "shape", "expected"), CASES)
def test_repair_gives_the_same_by_operators_that_follow_a_call(
    make, kinds, shape, expected, tmp_path
) -> None:
    report = retarget_file(make(tmp_path), tmp_path / "fixed.pte", repair=True)
    assert (report.repaired_sizes, report.repaired_embeddings) == (1, 0)
    graph = open_program(report.output).vulkan
    found = [operator.kind.removeprefix("aten.") for operator in graph.operators]
    assert found == ["sym_size", *kinds]
    assert memory_conflicts(graph) == []
    x = torch.randn(shape) if len(shape) > 2 else torch.arange(shape[1], dtype=torch.int32)[None]
    assert ReferenceRunner(report.output).forward(x).equal(expected(x))
