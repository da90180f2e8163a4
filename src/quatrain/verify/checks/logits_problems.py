"""Describes, in complete sentences, how a program's logits differ from its eager backbone's."""

import torch

from quatrain.runtime.generation.health import judge_logits
from quatrain.verify.checks.parity import Parity


def logits_problems(parity: Parity, allowed: float) -> list[str]:
    """The problem if the relative error is beyond `allowed`."""
    if parity.logits_error <= allowed:
        return []
    return [
        f"the logits differ by {parity.logits_error:.2g}, relatively; rounding explains up "
        f"to {allowed:.2g}"
    ]


def divergence_problems(parity: Parity, allowed: float) -> list[str]:
    """The problem if the mean divergence is beyond `allowed` nats.

    It is the criterion in 8da4w if layers cannot be compared: rounding changes the logits much, but
    the distributions little.
    """
    if parity.kl <= allowed:
        return []
    return [f"the divergence is {parity.kl:.2g} nats; rounding explains up to {allowed:.2g}"]


def health_problems(
    expected: list[list[torch.Tensor]], found: list[list[torch.Tensor]]
) -> list[str]:
    """What the choices of `found` suffer from where those of `expected` are healthy; both are
    the logits [V] of each step, per prompt."""
    pairs = zip(expected, found, strict=True)
    return [
        f"after prompt {number}: {problem}"
        for number, (wants, gots) in enumerate(pairs, 1)
        if not judge_logits(wants).problems
        for problem in judge_logits(gots).problems
    ]
