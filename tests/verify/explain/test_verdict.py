"""Which cause an answer has, from how it fits the right computation and one other."""

import pytest
import torch

from quatrain.verify.explain.hypotheses import Hypothesis
from quatrain.verify.explain.likelihood import TEMPERATURES, Fit, Rounding
from quatrain.verify.explain.verdict import Computed, cause_of

VOCABULARY = 1000
LIKELY, UNLIKELY = -0.05, -12.0  # nats, of a token at the lowest temperature
TOKENS = list(range(100, 120))


def fitted(gaps: list[float], coldest: list[float], warm: float, cause: str = "right") -> Computed:
    """A computation of `TOKENS` whose logs are `coldest` at the lowest temperature, `warm` at a
    token elsewhere."""
    return computed(
        gaps, [torch.tensor([log, *[warm] * (len(TEMPERATURES) - 1)]) for log in coldest], cause
    )


def fitted_at(temperature: float, cause: str = "right") -> Computed:
    """A computation that explains `TOKENS` at that temperature alone."""
    logs = torch.tensor([-1.0 if each == temperature else -400.0 for each in TEMPERATURES])
    return computed(OFF, [logs] * len(TOKENS), cause)


def computed(gaps: list[float], logs: list[torch.Tensor], cause: str) -> Computed:
    fit = Fit(Rounding(0.001), torch.zeros(VOCABULARY), TOKENS, TOKENS, gaps, logs)
    return Computed(Hypothesis(cause, cause, "", "", (1,), None), fit)


ALL, NONE = [LIKELY] * len(TOKENS), [UNLIKELY] * len(TOKENS)
EXACT, NEAR, OFF = [0.0] * len(TOKENS), [0.0] * 9 + [0.01] + [0.0] * 10, [3.0] * len(TOKENS)
AT_FIRST = fitted([0.0] * 10 + [5.0] * 10, [LIKELY] * 10 + [-400.0] * 10, -30.0)


@pytest.mark.parametrize(
    ("right", "other", "expected"),
    [
        (fitted(EXACT, ALL, -1.0), fitted(OFF, NONE, -12.0, "defect"), ("right", 0)),
        (fitted(NEAR, ALL, -1.0), fitted(OFF, NONE, -12.0, "defect"), ("rounding", 0)),
        (fitted(OFF, NONE, -1.0), fitted(OFF, NONE, -12.0, "defect"), ("sampling", 0)),
        (fitted(OFF, NONE, -12.0), fitted(EXACT, ALL, -1.0, "defect"), ("defect", 0)),
        (fitted(OFF, NONE, -12.0), fitted(OFF, NONE, -12.0, "defect"), ("unknown", 0)),
        (fitted_at(1.25), fitted(OFF, NONE, -12.0, "defect"), ("sampling", 0)),
        (fitted_at(1.6), fitted(OFF, NONE, -12.0, "defect"), ("unknown", 0)),
        (fitted(OFF, NONE, -12.0), fitted_at(2.0, "template"), ("unknown", 0)),
        (AT_FIRST, fitted(OFF, NONE, -40.0, "defect"), ("right at first", 10)),
    ],
)
def test_the_cause_is_what_makes_the_answer_likeliest(
    right: Computed, other: Computed, expected: tuple[str, int]
) -> None:
    best = max(right, other, key=lambda one: one.log_likelihood)
    assert cause_of(best, right, VOCABULARY) == expected
