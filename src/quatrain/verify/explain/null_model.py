"""The null model: the likelihood of a text that no computation here wrote, which each computation
must exceed."""

import math
from collections.abc import Sequence

from quatrain.verify.explain.likelihood import TEMPERATURES, Fit

_PARTED = 6.0  # nats that a change of the cause within a text costs beforehand
_FEWEST = 6  # tokens that are right before one


def null_logs(tokens: Sequence[int], vocab_size: int) -> list[float]:
    """The log probability of each of `tokens` as half any token, half one that was there before:
    garbled texts repeat."""
    seen: dict[int, int] = {}
    logs = []
    for place, token in enumerate(tokens):
        again = seen.get(token, 0) / place if place else 0.0
        logs.append(math.log(0.5 * again + 0.5 / vocab_size))
        seen[token] = seen.get(token, 0) + 1
    return logs


def right_at_first(right: Fit, vocab_size: int) -> tuple[int, float]:
    """(n, log likelihood) of the text whose first n tokens are the right ones and whose others are
    unrelated, at the best n; (0, -inf) where too few are right."""
    at = TEMPERATURES.index(max(t for t in TEMPERATURES if t <= right.rounding.temperature))
    greedy = [float(logs[at]) for logs in right.logs]
    after = null_logs(right.tokens, vocab_size)
    best, total = (0, -math.inf), 0.0
    rest = sum(after)
    for place, gap in enumerate(right.gaps):
        if gap > right.rounding.near_tie:
            break
        total, rest = total + greedy[place], rest - after[place]
        if place + 1 >= _FEWEST and total + rest > best[1]:
            best = place + 1, total + rest
    count, likelihood = best
    return count, likelihood - _PARTED - math.log(max(1, len(greedy)))
