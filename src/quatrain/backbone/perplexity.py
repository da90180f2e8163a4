"""How well a text is predicted, from what each of its tokens cost, and against another model."""

import math

import torch


def token_losses(logs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """What each of `targets` int64 [n] cost in nats, [n], by log-probabilities [n, V]."""
    return -logs.gather(1, targets[:, None])[:, 0]


def mean_and_error(values: torch.Tensor) -> tuple[float, float]:
    """The mean of `values` [n] and its standard error, which is not finite of a single one."""
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return float(values.mean()), error


def perplexity_ratio(losses: torch.Tensor, first: torch.Tensor) -> tuple[float, float]:
    """A model's perplexity over that of a `first` one, and the standard error of that, of the
    differences token by token: what each token cost them, float64 [n]."""
    more, error = mean_and_error(losses - first)
    ratio = float(torch.tensor(more, dtype=torch.float64).exp())  # may be inf
    return ratio, ratio * error


def kl_divergence(want: torch.Tensor, got: torch.Tensor) -> torch.Tensor:
    """KL(want || got) in nats, float64 [...], of log-probabilities [..., V] (Kullback and Leibler,
    1951).

    A token that `want` rules out (-inf, one of a pruned vocabulary) adds nothing. Rounding may
    leave it a little below 0.
    """
    terms = want.exp() * (want - got)
    return terms.masked_fill_(want.isneginf(), 0).sum(-1, dtype=torch.float64)


def same_most_likely(want: torch.Tensor, got: torch.Tensor) -> int:
    """At how many positions of log-probabilities [n, V] both have the same most likely token."""
    return int((want.argmax(-1) == got.argmax(-1)).sum())
