"""Sums of groups stored for other output channels than the 8da4w kernel steps over.

`apart_d.pte` is `llama_d.pte` with each group's sums 4 places further from the next one's.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.devices import RUNNERS
from tests.support.findings import findings
from tests.support.paths import CONFORMANCE

from quatrain.errors import InputError
from quatrain.program import Program, open_program, write_program
from quatrain.program.edit.retarget_file import retarget_file

APART, TOGETHER = CONFORMANCE / "apart_d.pte", CONFORMANCE / "llama_d.pte"
PROMPT, STEP, START = torch.arange(3)[None], torch.tensor([[1]]), torch.tensor([0])


def sums(program: Path | Program) -> list[np.ndarray]:
    graph = open_program(program).vulkan if isinstance(program, Path) else program.vulkan
    return [
        graph.constant(operator.named_args["weight_sums"])
        for operator in graph.operators
        if operator.kind == "et_vk.linear_dq8ca_q4gsw"
    ]


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """The program with sums for 4 channels fewer than there are."""
    program, path = open_program(APART), tmp_path / "short.pte"
    graph = program.vulkan
    for at, operator in enumerate(graph.operators):
        if operator.kind == "et_vk.linear_dq8ca_q4gsw":
            old = operator.named_args["weight_sums"]
            cut = graph.constant(old)[:, :-8].copy()
            new = graph.add_constant(program.add_data(cut.tobytes()), "int32", cut.shape)
            args = tuple(new if value == old else value for value in operator.args)
            graph.operators[at] = replace(operator, args=args)
    write_program(program, path)
    return path


@pytest.mark.parametrize("few", [False, True])
def test_they_are_stored_as_they_are_read(few: bool, short: Path, tmp_path: Path) -> None:
    program = short if few else APART
    assert "dq8ca-sums-apart" in findings(program, "desktop", "1.5")
    report = retarget_file(program, tmp_path / "joined.pte", repair=True)
    joined, expected = sums(report.output), sums(TOGETHER)
    assert (report.repaired_sums, report.repaired_sizes) == (len(expected), 0)
    for found, want in zip(joined, expected, strict=True):
        np.testing.assert_array_equal(found, want)
    assert "dq8ca-sums-apart" not in findings(report.output, "desktop", "1.5")
    with pytest.raises(InputError, match="nothing to repair"):
        retarget_file(report.output, tmp_path / "again.pte", repair=True)


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_prompt_that_reads_past_their_end_is_refused(runner, short: Path) -> None:
    opened = runner(short)
    assert torch.equal(opened.forward(STEP, START), runner(TOGETHER).forward(STEP, START))
    with pytest.raises(InputError, match="2 groups are stored for 60 output channels; the kernel"):
        opened.forward(PROMPT, START)
