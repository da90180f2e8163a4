"""Computes the logits after every token of a text, window by window."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from quatrain.backbone.model import Backbone
from quatrain.runtime.runner import Runner, longest_call

WINDOW = 64  # tokens of a call: 64 rows of 128,000 logits are 33 MB


class Chunk(NamedTuple):
    """`ids`, read from an empty context. What is predicted after those from `first` on counts, up
    to and without `last`."""

    ids: list[int]
    first: int
    last: int


def cut(begin: list[int], ids: list[int], length: int, stride: int | None) -> list[Chunk]:
    """Chunks of `length` tokens of `ids`, one after another; with a `stride`, each begins that many
    tokens after the previous one and counts only tokens that the previous one did not predict, so
    that these have more context.

    `begin`, the tokens that begin a text, is put before each, so that all of `ids` is predicted; if
    it is empty, the first token of a chunk (with a `stride`, of the text) is not.
    """
    own, first = length - len(begin), max(0, len(begin) - 1)
    if stride is None:
        pieces = [begin + ids[at : at + own] for at in range(0, len(ids), own)]
        return [Chunk(piece, first, len(piece)) for piece in pieces if len(piece) > 1]
    chunks: list[Chunk] = []
    predicted = -1 if begin else 0  # the last of `ids` that a chunk predicts
    for at in range(0, len(ids), stride):
        piece = ids[at : at + own]
        if at + len(piece) - 1 > predicted:
            predicts = len(begin) + predicted - at
            chunks.append(Chunk(begin + piece, predicts, len(begin) + len(piece) - 1))
            predicted = at + len(piece) - 1
    return chunks


class AllPositionLogits:
    """An eager backbone as a runner that gives the logits [1, T, V] of all T tokens of a call."""

    def __init__(self, backbone: Backbone, device: str):
        self.backbone = backbone
        self.device = device

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
        """tokens int64 [1, T] at positions input_pos[0] onwards; float32 [1, T, V]."""
        return self.backbone.logits(self.backbone.hidden(tokens, int(input_pos[0])))

    def reset(self) -> None:
        """Forget the context."""
        self.backbone.reset()


@torch.inference_mode()
def window_logits(runner: Runner, tokens: Sequence[int], window: int) -> Iterator[torch.Tensor]:
    """The logits after each of `tokens`, in order, as float32 [n, V] with n <= `window`.

    A runner that gives the last token's logits alone is asked for one token at a time. Otherwise no
    call has a single token, unless the text is: on a phone that would be a step of decode, which
    computes 8da4w otherwise (`quatrain.arithmetic`).
    """
    runner.reset()
    at, window = 0, longest_call(runner, window)
    while at < len(tokens):
        one_would_be_left = len(tokens) - at == window + 1 and window > 2
        part = tokens[at : at + window - one_would_be_left]
        rows = runner.forward(torch.tensor([list(part)]), torch.tensor([at]))
        rows = rows.reshape(-1, rows.shape[-1]).float()
        if len(rows) < len(part):
            window = 1
            continue
        yield rows
        at += len(part)
