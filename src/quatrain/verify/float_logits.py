"""A model in floating point as a runner: computed layer by layer, for all texts at once."""

from collections.abc import Sequence
from itertools import groupby

import torch

from quatrain.backbone.layer_by_layer import LayerByLayer
from quatrain.checkpoint.float_model import FloatModel

_TOKENS_AT_ONCE = 8192  # side by side: 50 MB of a hidden state 1536 wide


class FloatLogits:
    """The logits of texts that are known beforehand, which `expect` takes; `reset` begins each.

    One layer is in memory at a time, so that a model may be larger than that.
    """

    device = "eager, floating point"

    def __init__(self, model: FloatModel):
        self._layers = LayerByLayer(model.config, model.tensors)
        self._texts: list[list[int]] = []
        self._hidden: list[torch.Tensor] = []  # [T, dim] of each text
        self._at = -1

    def expect(self, texts: Sequence[list[int]]) -> None:
        """Those that will be asked for, in that order."""
        self._texts = list(texts)

    def reset(self) -> None:
        """Go to the next text."""
        self._at += 1

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
        """tokens int64 [1, T] of the text, at positions input_pos[0] onwards: float32 [1, T, V]."""
        if not self._hidden:
            self._read()
        start = int(input_pos[0])
        hidden = self._hidden[self._at][start : start + tokens.shape[1]]
        return self._layers.ends.logits(hidden[None])

    def _read(self) -> None:
        for length, texts in groupby(self._texts, len):
            for part in torch.tensor(list(texts)).split(max(1, _TOKENS_AT_ONCE // length)):
                self._hidden += self._layers.hidden(part).unbind()
