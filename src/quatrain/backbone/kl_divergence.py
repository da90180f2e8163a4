"""How far one prediction of the next token is from another."""

import torch


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
