"""What verify says where a float16 program gives what is not finite."""

import math

import pytest

from quatrain.verify.checks.half_sums import overflow_problems
from quatrain.verify.checks.layerwise import LayerwiseComparison


@pytest.mark.parametrize(
    ("worst", "halves", "said"),
    [(math.inf, 0.01, "values, or intermediate sums of a prompt"), (math.inf, 0.0, "values exceed"),
     (0.1, 0.01, None)],
)  # fmt: skip
def test_values_and_sums_beyond_float16_are_reported_with_a_remedy(worst, halves, said):
    problems = overflow_problems(LayerwiseComparison(3, worst, None), halves)
    assert bool(problems) == (said is not None)
    for problem in problems:
        assert problem.startswith(said) and "--activation-dtype fp32" in problem
