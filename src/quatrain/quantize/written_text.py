"""Texts that a model itself writes."""

from collections.abc import Callable

import torch

from quatrain.backbone.model import Backbone

_BEGINNING = 32  # tokens of another text, from which one goes on


def write_on(
    backbone: Backbone,
    begin: torch.Tensor,
    length: int,
    generator: torch.Generator,
    advance: Callable[[float], None],
) -> torch.Tensor:
    """int64 [texts, length]: `begin` int64 [texts, P], and after it what `backbone` predicts,
    drawn token by token, all texts side by side; on the device that `begin` is on."""
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
    """`count` pieces of `texts` int64 [B, T], drawn at random: int64 [count, P]. Where all texts
    begin with the same token, so do these."""
    length = min(_BEGINNING, texts.shape[1])
    first = int(bool((texts[:, 0] == texts[0, 0]).all()))
    own = length - first
    text = torch.randint(len(texts), (count, 1), generator=generator)
    start = torch.randint(first, texts.shape[1] - own + 1, (count, 1), generator=generator)
    pieces = texts[text, start + torch.arange(own)]
    return torch.cat([texts[:1, :first].expand(count, -1), pieces], 1)
