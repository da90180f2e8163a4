"""Whether one of two models is worse than the other on the same inputs, beyond chance."""

from collections.abc import Iterable

import numpy as np

# A verdict that falls the wrong way once in a million runs: less often than a machine breaks.
FALSE_ALARMS = 1e-6


def chance_of_so_low(differences: Iterable[int]) -> float:
    """How likely a sum of `differences` as low as theirs is, were each of either sign alike.

    The exact one-sided sign-flip test of paired samples (Fisher, The Design of Experiments,
    1935, section 21): it needs no distribution of theirs, only that a pair could as well have come
    the other way around.
    """
    sizes = [int(difference) for difference in differences]
    positive = sum(size for size in sizes if size > 0)
    chances = np.ones(1)  # of each sum of those that are positive
    for size in map(abs, sizes):
        flipped = np.zeros(len(chances) + size)
        flipped[: len(chances)] += chances / 2
        flipped[size:] += chances / 2
        chances = flipped
    return float(chances[: positive + 1].sum())
