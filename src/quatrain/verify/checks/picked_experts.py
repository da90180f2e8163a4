"""Finds the experts of a backbone's mixtures to which texts are routed."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from quatrain.backbone.layers.moe import MixtureOfExperts
from quatrain.backbone.model import Backbone


@contextmanager
def watched_experts(backbone: Backbone) -> Iterator[dict[int, torch.Tensor]]:
    """By layer with a mixture, which of its experts are picked for a token while this lasts, bool
    [experts]."""
    picked, handles = dict[int, torch.Tensor](), []
    for layer, block in enumerate(backbone.layers):
        for mixture in block.modules():
            if isinstance(mixture, MixtureOfExperts):
                picked[layer] = torch.zeros(len(mixture.experts), dtype=torch.bool)
                note = partial(_note, picked[layer])
                handles.append(mixture.register_forward_hook(note))
    try:
        yield picked
    finally:
        for handle in handles:
            handle.remove()


def _note(picked: torch.Tensor, mixture: nn.Module, given: tuple, _result: torch.Tensor) -> None:
    assert isinstance(mixture, MixtureOfExperts)
    picked |= (mixture.scores(given[0]) > 0).flatten(0, -2).any(0)
