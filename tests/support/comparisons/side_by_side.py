"""The eager backbone reading many short texts at once, for the time of one long text."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch import nn

from quatrain.backbone.model import Backbone


@torch.inference_mode()
def logits_side_by_side(backbone: Backbone, texts: torch.Tensor) -> torch.Tensor:
    """The logits [N, T, vocab_size] after each token of `texts` [N, T], each read by itself.

    The texts make one call of N * T tokens; rotary embedding and attention are called once for
    each, at position 0, and all else is of each token alone.
    """
    with _position_zero_for_each(backbone, *texts.shape):
        hidden = backbone.hidden(texts.reshape(1, -1), 0)
    return backbone.logits(hidden)[0].unflatten(0, texts.shape)


@contextmanager
def _position_zero_for_each(backbone: Backbone, count: int, length: int) -> Iterator[None]:
    def rotations(module: nn.Module):
        angles = [part.repeat(count, 1) for part in module.forward(0, length)]
        return lambda start, tokens: tuple(angles)

    def attention(module: nn.Module):
        forward = module.forward

        def attend(q, k, v, start):
            texts = zip(*(part.split(length, dim=1) for part in (q, k, v)), strict=True)
            return torch.cat([forward(*text, 0) for text in texts], dim=1)

        return attend

    with ExitStack() as stack:
        stack.enter_context(patch.object(backbone.rope, "forward", rotations(backbone.rope)))
        for layer in backbone.layers:
            attend = layer.attention.attend
            stack.enter_context(patch.object(attend, "forward", attention(attend)))
        yield
