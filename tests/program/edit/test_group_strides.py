"""Scales and sums of groups stored for other output channels than the kernels step over.

`apart_d.pte` and `apart_w.pte` are `llama_d.pte` and `llama_w.pte` with each group's scales, and
sums, 4 places further from the next one's; what ExecuTorch's own runtime gave lies beside them.
"""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.support.defects.findings import findings
from tests.support.devices import RUNNERS
from tests.support.paths import CONFORMANCE

from quatrain.errors import InputError
from quatrain.program import open_program, write_program
from quatrain.program.edit.retarget_file import retarget_file
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS

APART, TOGETHER = CONFORMANCE / "apart_d.pte", CONFORMANCE / "llama_d.pte"
DEFECTS = {"weight_scales": "q4gsw-scales-apart", "weight_sums": "dq8ca-sums-apart"}
PROMPT, START = torch.arange(3)[None], torch.tensor([0])


def of_groups(path: Path, name: str) -> list[np.ndarray]:
    graph = open_program(path).vulkan
    arguments = [op.named_args for op in graph.operators if op.kind in INT4_LINEARS]
    return [graph.constant(one[name]) for one in arguments if name in one]


def changed(
    path: Path,
    output: Path,
    name: str,
    change: Callable[[np.ndarray], np.ndarray],
    kinds: Collection[str] = INT4_LINEARS,
) -> Path:
    """`path` with `change` made to that constant of all operators of these kinds."""
    program = open_program(path)
    graph = program.vulkan
    for at, operator in enumerate(graph.operators):
        if operator.kind in kinds:
            old = operator.named_args[name]
            made = np.ascontiguousarray(change(graph.constant(old)))
            new = graph.add_constant(program.add_data(made.tobytes()), made.dtype.name, made.shape)
            args = tuple(new if value == old else value for value in operator.args)
            graph.operators[at] = replace(operator, args=args)
    write_program(program, output)
    return output


def short(scheme: str, name: str, folder: Path) -> Path:
    """A program with that constant for 4 channels fewer than there are."""
    return changed(CONFORMANCE / f"llama_{scheme}.pte", folder / "short.pte", name,
                   lambda stored: stored[:, :-4])  # fmt: skip


def assert_joined(path: Path, scheme: str, output: Path) -> None:
    whole = CONFORMANCE / f"llama_{scheme}.pte"
    report = retarget_file(path, output, repair=True)
    for name, defect in DEFECTS.items():
        joined, expected = of_groups(output, name), of_groups(whole, name)
        for found, want in zip(joined, expected, strict=True):
            np.testing.assert_array_equal(found, want)
        assert defect not in findings(output, "desktop", "1.5")
    assert report.repaired_linears == len(of_groups(whole, "weight_scales"))
    assert report.repaired_sizes == 0


@pytest.mark.parametrize("scheme", ["d", "w"])
def test_they_are_stored_as_they_are_read(scheme: str, tmp_path: Path) -> None:
    apart, joined = CONFORMANCE / f"apart_{scheme}.pte", tmp_path / "joined.pte"
    found = set(findings(apart, "desktop", "1.5")) & set(DEFECTS.values())
    assert found == set(DEFECTS.values() if scheme == "d" else [DEFECTS["weight_scales"]])
    assert_joined(apart, scheme, joined)
    with pytest.raises(InputError, match="nothing to repair"):
        retarget_file(joined, tmp_path / "again.pte", repair=True)


def test_sums_are_computed_again_if_there_are_too_few(tmp_path: Path) -> None:
    few = short("d", "weight_sums", tmp_path)
    assert "dq8ca-sums-apart" in findings(few, "desktop", "1.5")
    assert_joined(few, "d", tmp_path / "joined.pte")


def test_scales_of_too_few_channels_are_not_made_up(tmp_path: Path) -> None:
    few, output = short("w", "weight_scales", tmp_path), tmp_path / "joined.pte"
    with pytest.raises(InputError, match=r"short\.pte: an int4 linear of 64 output channels"):
        retarget_file(few, output, repair=True)
    assert not output.exists()


def widened(stored: np.ndarray) -> np.ndarray:
    return np.pad(stored, ((0, 0), (0, stored.shape[1])))


def halved(stored: np.ndarray) -> np.ndarray:
    return stored.astype(np.float16)


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize(
    ("name", "change", "problem"),
    [
        ("weight_sums", lambda stored: stored[:, :-4], r"weight_sums \[2, 60\] of 2 groups"),
        ("weight_scales", lambda stored: stored[:, :-4], r"weight_scales \[2, 60\] of 2 groups"),
        ("weight_scales", halved, "weight_scales of float16, read as float32"),
        ("weight_scales", np.ravel, r"64 inputs in groups of 32 do not fit .* scales \[128\]"),
        ("weights", widened, r"64 inputs in groups of 32 do not fit .* uint8\[64, 64\]"),
    ],
)
def test_what_a_kernel_does_not_read_as_stored_is_refused(
    runner, name: str, change, problem: str, tmp_path: Path
) -> None:
    path = changed(TOGETHER, tmp_path / "other.pte", name, change)
    with pytest.raises(InputError, match=rf"other\.pte: layers\.0\.attention\.wq: {problem}"):
        runner(path)


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_table_with_other_scales_than_its_groups_is_refused(runner, tmp_path: Path) -> None:
    """One scale a row of two groups was taken for both: a phone reads the next row's."""
    kinds = ("et_vk.embedding_q4gsw",)
    path = changed(
        TOGETHER, tmp_path / "e.pte", "weight_scales", lambda stored: stored[:, :1], kinds
    )
    with pytest.raises(InputError, match=r"embedding_q4gsw.* cannot be computed"):
        runner(path).forward(PROMPT, START)
