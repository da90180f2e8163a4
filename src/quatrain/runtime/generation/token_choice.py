"""Chooses the next token from logits, as `Sampling` says."""

from collections.abc import Sequence

import torch

from quatrain.runtime.generation.sampling import Sampling


class TokenChoice:
    """Chooses token after token; a seed gives the same ones each time."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._generator = torch.Generator().manual_seed(sampling.seed)

    def __call__(self, logits: torch.Tensor, context: Sequence[int]) -> int:
        """A token, by the `logits` [..., V] of one position, after the tokens `context`."""
        sampling = self.sampling
        row = penalized(logits.reshape(-1).double(), context, sampling.repetition_penalty)
        if sampling.temperature == 0:
            return int(row.argmax())
        # From the largest down: a small temperature makes the others -inf, and none NaN.
        weights = torch.softmax(narrowed((row - row.max()) / sampling.temperature, sampling), -1)
        if weights.isnan().any():  # of a broken model
            return int(row.argmax())
        return int(torch.multinomial(weights, 1, generator=self._generator))


def penalized(row: torch.Tensor, context: Sequence[int], penalty: float) -> torch.Tensor:
    """Logits `row` [V] where those of tokens in `context` are less likely, by `penalty`."""
    if penalty == 1:
        return row
    there = torch.tensor(sorted({token for token in context if token < len(row)}))
    of_them = row[there]
    return row.scatter(0, there, torch.where(of_them < 0, of_them * penalty, of_them / penalty))


def narrowed(row: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Scaled logits `row` [V], -inf where top-k, top-p or min-p leave a token out."""
    if sampling.top_k:
        least = row.topk(min(sampling.top_k, len(row))).values[-1]
        row = row.masked_fill(row < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, places = row.sort()
        # Tokens that, together with all less likely ones, have at most the remaining probability.
        few = ordered.softmax(-1).cumsum(-1) <= 1 - sampling.top_p
        few[-1] = False
        row = row.masked_fill(torch.zeros_like(few).scatter(0, places, few), -torch.inf)
    if sampling.min_p:
        chances = row.softmax(-1)
        row = row.masked_fill(chances < sampling.min_p * chances.max(), -torch.inf)
    return row
