"""Chooses the next token from logits, as `Sampling` says."""

from collections.abc import Sequence

import numpy as np
import torch

from quatrain.runtime.generation.sampling import Sampling


class TokenChoice:
    """Chooses token after token; a seed gives the same ones each time."""

    def __init__(self, sampling: Sampling) -> None:
        self.sampling = sampling
        self._generator = np.random.default_rng(sampling.seed)

    def __call__(self, logits: torch.Tensor, context: Sequence[int]) -> int:
        """A token, by the `logits` [..., V] of one position, after the tokens `context`."""
        sampling = self.sampling
        row = logits.reshape(-1).float().numpy()
        with np.errstate(invalid="ignore", over="ignore"):  # of infinite logits, or nearly so
            row = penalized(row, context, sampling.repetition_penalty)
            if sampling.temperature == 0:
                return int(row.argmax())
            # From the largest down: a small temperature makes the others -inf, and none NaN.
            scaled = (row - row.max()).astype(np.float64) / sampling.temperature
            up_to = np.exp(narrowed(scaled, sampling)).cumsum()
        if np.isnan(up_to[-1]):  # of a broken model
            return int(row.argmax())
        return int(up_to.searchsorted(self._generator.random() * up_to[-1], side="right"))


def penalized(row: np.ndarray, context: Sequence[int], penalty: float) -> np.ndarray:
    """Logits `row` [V] where those of tokens in `context` are less likely, by `penalty`."""
    if penalty == 1:
        return row
    there = sorted({token for token in context if token < len(row)})
    row, of_them = row.copy(), row[there]
    row[there] = np.where(of_them < 0, of_them * penalty, of_them / penalty)
    return row


def narrowed(row: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Scaled logits `row` [V], -inf where top-k, top-p or min-p leave a token out."""
    row = row.copy()
    if 0 < sampling.top_k < len(row):
        row[row < np.partition(row, -sampling.top_k)[-sampling.top_k]] = -np.inf
    if sampling.top_p < 1:
        row[_outside_top_p(_softmax(row), 1 - sampling.top_p)] = -np.inf
    if sampling.min_p:
        chances = _softmax(row)
        row[chances < sampling.min_p * chances.max()] = -np.inf
    return row


def _outside_top_p(chances: np.ndarray, rest: float) -> np.ndarray:
    """Which tokens, together with all less likely ones, have at most the probability `rest`."""
    # As many as there are of these have at most half of it. To sort all takes long.
    outside = chances <= rest / (2 * len(chances))
    likelier = np.flatnonzero(~outside)
    ordered = likelier[chances[likelier].argsort()]
    few = chances[outside].sum() + chances[ordered].cumsum() <= rest
    few[-1] = False
    outside[ordered[few]] = True
    return outside


def _softmax(row: np.ndarray) -> np.ndarray:
    weights = np.exp(row - row.max())
    return weights / weights.sum()
