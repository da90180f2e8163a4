"""Which logits are called wrong."""

import math

import torch

from quatrain.verify.checks.logits_problems import (
    divergence_problems,
    health_problems,
    logits_problems,
)
from quatrain.verify.checks.parity import Parity


def test_what_passes_its_limit_or_is_not_a_number_is_a_problem() -> None:
    parity = Parity(logits_error=0.2, top1_agreement=1.0, kl=0.1, first_difference=None)
    assert logits_problems(parity, 0.2) == divergence_problems(parity, 0.1) == []
    assert "differ by 0.2" in logits_problems(parity, 0.1)[0]
    assert "0.1 nats" in divergence_problems(parity, 0.01)[0]
    lost = Parity(math.nan, 0.0, math.nan, 0)
    assert logits_problems(lost, 1.0) and divergence_problems(lost, 1.0)


def test_unhealthy_choices_are_a_problem_of_the_program_alone() -> None:
    calm = [[torch.eye(16)[i] for i in range(9)]]
    stuck = [[torch.eye(16)[3]] * 9]
    assert health_problems(calm, stuck)[0] == "after prompt 1: one token stands 9 times in a row"
    assert health_problems(calm, calm) == health_problems(stuck, stuck) == []
