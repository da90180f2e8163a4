"""Texts that a model generates."""

from collections.abc import Callable

import torch

from quatrain.backbone.model import Backbone

_BEGINNING = 32  # tokens of another text that a generated text continues


def continue_texts(
    backbone: Backbone,
    begin: torch.Tensor,
    length: int,
    generator: torch.Generator,
    advance: Callable[[float], None],
) -> torch.Tensor:
    """int64 [texts, length]: `begin` int64 [texts, P], continued with tokens sampled from the
    predictions of `backbone`, all texts in one batch; on the device of `begin`."""
    backbone.make_room(len(begin), length, device=begin.device)
    rows, at = [begin], 0
    with torch.inference_mode(), torch.device(begin.device):
        while at + rows[-1].shape[1] < length:
            logits = backbone(rows[-1], torch.tensor([at]))
            at += rows[-1].shape[1]
            chances = torch.softmax(logits, -1)
            rows.append(torch.multinomial(chances, 1, generator=generator))
            advance((at + 1) / length)
    return torch.cat(rows, 1)


def beginnings(texts: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """`count` random pieces of `texts` int64 [B, T]: int64 [count, P]. If all texts begin with the
    same token, so do the pieces."""
    length = min(_BEGINNING, texts.shape[1])
    first = int(bool((texts[:, 0] == texts[0, 0]).all()))
    own = length - first
    text = torch.randint(len(texts), (count, 1), generator=generator)
    start = torch.randint(first, texts.shape[1] - own + 1, (count, 1), generator=generator)
    pieces = texts[text, start + torch.arange(own)]
    return torch.cat([texts[:1, :first].expand(count, -1), pieces], 1)
