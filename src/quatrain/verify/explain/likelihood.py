"""The likelihood of an answer's tokens under a computation, at several temperatures.

A phone that always takes the likeliest token takes, of two whose logits rounding can swap, either
one: as if it sampled at a low temperature. So one number says how an answer was chosen, the
temperature that explains it best.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from quatrain.verify.explain.computed_program import ComputedProgram
from quatrain.verify.explain.written_tokens import WrittenTokens

TEMPERATURES = (0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.85, 1.0, 1.25, 1.6, 2.0)
SAMPLING = 2.0  # nats by which sampling is unlikelier than rounding, before anything is looked at
_IMPOSSIBLE = -1e4  # nats: a token that a mask or a NaN forbids
# A difference of two logits that each move by a spread is like a logistic one of this scale.
_OF_SPREAD = math.sqrt(2) * math.sqrt(3) / math.pi
_LOST_READINGS = 32  # tokens that are tried, the likeliest first, where bytes were lost
_REFITS = 64  # so many tokens at most are read otherwise than the tokenizer has them
_BATCHES = (8, 32, 64)  # tokens computed at a time: few first, as most are soon hopeless


@dataclass(frozen=True)
class Rounding:
    """What rounding does to a program's logits: it moves each by `spread` nats, mostly, so that of
    two either may be taken, as if at `temperature`."""

    spread: float

    @property
    def temperature(self) -> float:
        """In nats."""
        return max(_OF_SPREAD * self.spread, TEMPERATURES[0])

    @property
    def near_tie(self) -> float:
        """How far apart, in nats, two logits are that it hardly ever swaps."""
        return 3 * self.temperature


@dataclass
class Fit:
    """How an answer fits: its `tokens`, the most likely token at each position, by how many nats
    each token is less likely than that (`gaps`), and its log probability at each temperature
    (`logs` [n, G]).

    `first_row` [V] are the logits after the prompt; `whole`: all tokens were looked at.
    """

    rounding: Rounding
    first_row: torch.Tensor
    tokens: list[int] = field(default_factory=list)
    likeliest: list[int] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    logs: list[torch.Tensor] = field(default_factory=list)
    whole: bool = True

    @property
    def log_likelihood(self) -> float:
        """In nats, at the best temperature, less what sampling is unlikelier by."""
        return float(self._totals().max())

    @property
    def temperature(self) -> float:
        """That explains it best."""
        return TEMPERATURES[int(self._totals().argmax())]

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token was always taken, but for rounding."""
        return self.first_difference is None or self.temperature <= self.rounding.temperature

    @property
    def agreeing(self) -> int:
        """How many tokens are the likeliest ones."""
        return sum(gap == 0 for gap in self.gaps)

    @property
    def first_difference(self) -> int | None:
        """The place of the first token that is not the likeliest one; None: all are."""
        return next((place for place, gap in enumerate(self.gaps) if gap > 0), None)

    def _totals(self) -> torch.Tensor:
        if not self.logs:
            return torch.zeros(len(TEMPERATURES))
        sampled = torch.tensor(TEMPERATURES) > self.rounding.temperature
        return torch.stack(self.logs).sum(0) - SAMPLING * sampled


def fit(
    model: ComputedProgram,
    row: torch.Tensor,
    start: int,
    written: WrittenTokens,
    rounding: Rounding,
    hopeless: Callable[[float], bool],
) -> Fit:
    """How what was `written` fits after a prompt of `start` tokens that `model` has read and gave
    `row` [V] for; not to its end where the log likelihood becomes `hopeless`."""
    found = Fit(rounding, row)
    left, refits = list(written.first), 0
    for batch in _batches():
        if not left:
            return found
        if hopeless(found.log_likelihood):
            found.whole = False
            return found
        part = left[:batch]
        rows = model.read_answer(part, start + len(found.tokens))
        before = torch.cat([row[None], rows[:-1]])
        place, again = (
            _refit(before, part, found.tokens, written) if refits < _REFITS else (0, None)
        )
        if again is None:
            _add(found, before, part)
            row, left = rows[-1], left[batch:]
        else:
            _add(found, before[:place], part[:place])
            row, left, refits = before[place], again, refits + 1
    return found


def fit_tokens(
    model: ComputedProgram, row: torch.Tensor, start: int, tokens: Sequence[int], rounding: Rounding
) -> Fit:
    """As `fit`, of `tokens` as they are."""
    found = Fit(rounding, row)
    rows = model.read_answer(tokens, start)
    _add(found, torch.cat([row[None], rows[:-1]]), tokens)
    return found


def _batches() -> Iterator[int]:
    yield from _BATCHES
    while True:
        yield _BATCHES[-1]


def _refit(
    before: torch.Tensor, part: Sequence[int], read: Sequence[int], written: WrittenTokens
) -> tuple[int, list[int] | None]:
    """The first of the tokens `part` in whose place the likeliest one fits as well, or one of the
    likeliest where its bytes were lost, and what is left from there on; (0, None) where there is
    none."""
    for place, likeliest in enumerate(before.argmax(-1).tolist()):
        if likeliest == part[place]:
            continue
        known, tried = [*read, *part[:place]], [likeliest]
        if written.lost_after(known):
            tried = before[place].topk(min(_LOST_READINGS, before.shape[-1])).indices.tolist()
        for token in tried:
            if token == part[place]:
                break
            again = written.refit(known, token)
            if again is not None:
                return place, again
    return 0, None


def _add(found: Fit, rows: torch.Tensor, tokens: Sequence[int]) -> None:
    """Note `tokens` [n], chosen by `rows` [n, V]."""
    if not len(tokens):
        return
    chosen = rows.gather(-1, torch.tensor(list(tokens))[:, None])[:, 0]
    largest, likeliest = rows.max(-1)
    found.tokens += tokens
    found.likeliest += likeliest.tolist()
    found.gaps += (largest - chosen).nan_to_num(math.inf).tolist()
    found.logs += _logs(rows, chosen, largest)


def _logs(rows: torch.Tensor, chosen: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """The log probabilities [n, G] of the logits `chosen` [n] of `rows` [n, V]."""
    shifted = rows - largest[:, None]
    sums = [torch.logsumexp(shifted / temperature, -1) for temperature in TEMPERATURES]
    logs = (chosen - largest)[:, None] / torch.tensor(TEMPERATURES) - torch.stack(sums, -1)
    return logs.nan_to_num(_IMPOSSIBLE, neginf=_IMPOSSIBLE)
