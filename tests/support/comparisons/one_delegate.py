"""Vulkan programs of one delegate, held against the eager backbone."""

from pathlib import Path

from tests.support.comparisons.planned import assert_as_planned

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.export import ExportReport
from quatrain.program import Program, open_program
from quatrain.program.inspect.linears import find_linears
from quatrain.runtime.load import load_runner
from quatrain.verify.checks.layerwise import compare_layerwise
from quatrain.verify.eager import load_eager


def assert_one_delegate_as_eager(
    report: ExportReport, checkpoint: Path, linears: set[str], probes: int, bound: float = 1e-4
) -> Program:
    """The program of `report`, in 8da4w, is as large as planned, one delegate with all linears,
    among them `linears`, and computes as eager does at more than `probes` places. Returns it."""
    assert_as_planned(report, checkpoint)
    program = open_program(report.output)
    assert len(program.delegates) == 1
    names = {linear.name for linear in find_linears(program.vulkan)}
    assert linears < names == {row.name for row in report.linears}
    eager = load_eager(checkpoint, "8da4w", ARITHMETIC_OF["vulkan"])
    runner = load_runner(report.output, "reference")
    compared = compare_layerwise(runner, eager, list(range(9)), bound)
    assert compared.first is None and compared.probes > probes
    return program
