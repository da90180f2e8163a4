"""SmolLM2's programs, opened, retargeted and slimmed."""

from pathlib import Path

import pytest
import torch
from tests.support.models.real_models import RealModel

from quatrain.program import open_program, write_program
from quatrain.program.edit.retarget import retarget
from quatrain.program.edit.slim import slim
from quatrain.program.inspect.report import inspect_program
from quatrain.program.vulkan.memory import memory_conflicts
from quatrain.runtime.reference import ReferenceRunner

pytestmark = pytest.mark.real
OTHER = {"8da4w": "weight-only", "weight-only": "8da4w"}


def greedy(path: Path, steps: int = 8) -> torch.Tensor:
    """Logits [1 + steps, vocab] of a prompt of 16 tokens and what greedily follows."""
    runner = ReferenceRunner(path)
    rows = [runner.forward(torch.arange(100, 116)[None], torch.tensor([0]))]
    for step in range(steps):
        rows.append(runner.forward(rows[-1].argmax(-1)[None], torch.tensor([16 + step])))
    return torch.cat(rows)


@pytest.mark.parametrize("scheme", ["8da4w", "weight-only"])
def test_retargeted_equals_exported_bit_for_bit(
    scheme: str, smollm2: RealModel, tmp_path: Path
) -> None:
    program = open_program(smollm2.program(scheme))
    assert len(retarget(program, OTHER[scheme])) == 211
    write_program(program, tmp_path / "other.pte")
    assert memory_conflicts(program.vulkan) == []
    exported = smollm2.program(OTHER[scheme])
    assert set(open_program(tmp_path / "other.pte").named_data) == set(
        open_program(exported).named_data
    )
    assert greedy(tmp_path / "other.pte").equal(greedy(exported))


def test_parameters_are_chosen_for_121_activations_not_for_211_linears(smollm2: RealModel) -> None:
    program = open_program(smollm2.program("8da4w"))
    kinds = [operator.kind for operator in program.vulkan.operators]
    assert kinds.count("et_vk.linear_dq8ca_q4gsw") == 211
    assert kinds.count("torchao.choose_qparams_affine") == 121
    assert slim(program).operators == 0


def test_every_linear_and_every_byte_is_reported(smollm2: RealModel) -> None:
    report = inspect_program(open_program(smollm2.program("8da4w")))
    assert report.schemes == {"8da4w": 211}
    assert (report.layers, report.context_length, report.outside) == (30, 512, {})
    assert sum(report.bytes_by_kind.values()) == report.bytes
