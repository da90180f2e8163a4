"""Computes the logits of several known texts in one batch."""

from collections.abc import Callable, Iterator, Sequence

import torch

from quatrain.backbone.layer_by_layer import LayerByLayer
from quatrain.backbone.model import Backbone
from quatrain.checkpoint.float_model import FloatModel
from quatrain.verify.evaluate.windows import WINDOW

_TOKENS_OF_WEIGHTS_READ_AGAIN = 8192  # a hidden state 1536 wide: 50 MB
_TOKENS_OF_WEIGHTS_IN_MEMORY = 2048  # a matrix product is no faster with more rows
_LOGITS_AT_ONCE = 1 << 24  # 67 MB; with fewer rows reading the output layer takes longer


class SideBySide:
    """A runner for texts that `expect` takes; `reset` begins each of them.

    `hidden` gives the last hidden states [B, T, dim] of tokens [B, T], each row read from an empty
    context; `logits` those [..., V] of hidden states. So many tokens at once as `at_once` says.
    """

    def __init__(
        self,
        hidden: Callable[[torch.Tensor], torch.Tensor],
        logits: Callable[[torch.Tensor], torch.Tensor],
        device: str,
        at_once: int,
    ):
        self.device = device
        self._hidden_of, self._logits_of, self._at_once = hidden, logits, at_once
        self._hidden: Iterator[torch.Tensor] = iter(())
        self._now = torch.empty(0)  # [T, dim]

    def expect(self, texts: Sequence[Sequence[int]], first: int = 0) -> None:
        """The texts that will be asked for, in order; those before `first` will not be, but stay in
        the batch, because another batch rounds differently."""
        self._hidden = self._read(texts, first)

    def reset(self) -> None:
        """Go to the next text."""
        self._now = next(self._hidden)

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
        """tokens int64 [1, T] of the text, at positions input_pos[0] onwards: float32 [1, T, V]."""
        start = int(input_pos[0])
        # Two dimensions: a view of three goes through torch's slower batched product.
        return self._logits_of(self._now[start : start + tokens.shape[1]])[None]

    def _read(self, texts: Sequence[Sequence[int]], first: int) -> Iterator[torch.Tensor]:
        at = 0
        for batch in _batches(texts, self._at_once):
            passed = min(len(batch), max(0, first - at))
            at += len(batch)
            if passed == len(batch):
                continue
            longest = max(map(len, batch))
            # Padding after a text does not change its results: attention is causal.
            rows = torch.tensor([[*text, *[0] * (longest - len(text))] for text in batch])
            with torch.inference_mode():
                hidden = self._hidden_of(rows)
            rows_of_texts = list(zip(hidden, batch, strict=True))[passed:]
            yield from (row[: len(text)] for row, text in rows_of_texts)


def float_side_by_side(model: FloatModel) -> SideBySide:
    """A model in floating point: one layer is in memory at a time."""
    layers = LayerByLayer(model.config, model.tensors)
    logits, device = layers.ends.logits, "eager, floating point"
    return SideBySide(layers.hidden, logits, device, _TOKENS_OF_WEIGHTS_READ_AGAIN)


def backbone_side_by_side(backbone: Backbone, device: str) -> SideBySide:
    """An eager backbone, whose KV caches have room for those texts alone."""

    def hidden(tokens: torch.Tensor) -> torch.Tensor:
        texts, length = tokens.shape
        backbone.make_room(texts, length)
        return backbone.hidden(tokens, 0)

    return SideBySide(hidden, backbone.logits, device, _TOKENS_OF_WEIGHTS_IN_MEMORY)


def rows_at_once(vocab_size: int) -> int:
    """For how many tokens to ask at once."""
    return max(WINDOW, _LOGITS_AT_ONCE // vocab_size)


def _batches(texts: Sequence[Sequence[int]], at_once: int) -> Iterator[list[Sequence[int]]]:
    """Neighbours of at most so many tokens, padding counted; a longer text by itself."""
    batch: list[Sequence[int]] = []
    for text in texts:
        longest = max(map(len, [*batch, text]))
        if batch and longest * (len(batch) + 1) > at_once:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch
