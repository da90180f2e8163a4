"""The floating-point model as what it predicts is learned from."""

from collections.abc import Callable

import torch

from quatrain.backbone.layer_by_layer import LayerByLayer
from quatrain.checkpoint.float_model import FloatModel

_TOKENS_AT_ONCE = 8192


class Teacher:
    """Its hidden states [texts, T, dim] on `texts`, bfloat16, computed once; logits of them when
    they are asked for."""

    def __init__(self, model: FloatModel, hidden: torch.Tensor, device: torch.device) -> None:
        self.hidden = hidden
        self._ends = LayerByLayer(model.config, model.tensors).ends.to(device)
        self._ends.expand = None  # as in the student
        self._ends.tok_embeddings = None  # frees its memory

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 [N, vocabulary] of its hidden states [N, dim]."""
        return self._ends.logits(hidden.float())


def hidden_states(
    model: FloatModel, texts: torch.Tensor, advance: Callable[[float], None]
) -> torch.Tensor:
    """The teacher's normed hidden states of `texts` int64 [B, T], bfloat16 [B, T, dim]."""
    layers = LayerByLayer(model.config, model.tensors, hidden_output=True)
    at_once = max(1, _TOKENS_AT_ONCE // texts.shape[1])
    return in_parts(
        texts, at_once, advance, lambda part, hear: layers.hidden(part, hear).bfloat16()
    )


def in_parts(
    texts: torch.Tensor,
    at_once: int,
    advance: Callable[[float], None],
    make: Callable[[torch.Tensor, Callable[[float], None]], torch.Tensor],
) -> torch.Tensor:
    """The results of `make` for `texts` [B, T], `at_once` of them at a time, in CPU memory; `make`
    also gets a progress callback for its part."""
    parts, found = texts.split(at_once), []
    for done, part in enumerate(parts):
        made = make(part, lambda of_part, done=done: advance((done + of_part) / len(parts)))
        found.append(made.cpu())
        advance((done + 1) / len(parts))
    return torch.cat(found)
