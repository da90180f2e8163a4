"""Sums of groups as ExecuTorch's exporter stores them, and as its kernel reads them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.support.findings import findings
from tests.support.kernel_defects import dynamic

from quatrain.errors import InputError
from quatrain.program import open_program, write_program
from quatrain.program.edit.retarget_file import retarget_file


def test_sums_stored_too_far_apart_are_joined(tmp_path: Path) -> None:
    program = open_program(dynamic(channels=12, sums_apart=16)(tmp_path))
    sums = np.arange(8 * 16, dtype=np.int32).reshape(8, 16)
    operator = program.vulkan.operators[1]
    new = program.vulkan.add_constant(program.add_data(sums.tobytes()), "int32", sums.shape)
    args = (*operator.args[:4], new, *operator.args[5:])
    program.vulkan.operators[1] = replace(operator, args=args)
    write_program(program, tmp_path / "apart.pte")
    report = retarget_file(tmp_path / "apart.pte", tmp_path / "joined.pte", repair=True)
    assert (report.repaired_sums, report.repaired_sizes) == (1, 0)
    graph = open_program(report.output).vulkan
    joined = graph.constant(graph.operators[1].named_args["weight_sums"])
    assert np.array_equal(joined, sums[:, :12])
    assert "dq8ca-sums-apart" not in findings(report.output, "desktop", "1.5")
    with pytest.raises(InputError, match="nothing to repair"):
        retarget_file(report.output, tmp_path / "again.pte", repair=True)
