"""How well a model predicted a text, in figures."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from quatrain.backbone.perplexity import mean_and_error, perplexity_ratio
from quatrain.verify.evaluate.divergence import Comparer, Divergence, Recorder
from quatrain.verify.evaluate.evaluated_models import Regime


@dataclass(frozen=True)
class Evaluation:
    """How well a model predicted a text.

    Attributes:
        model: The model's path.
        device: What it ran on, as text for people.
        predicted: The number of tokens predicted.
        loss: The mean cross-entropy of a token, in nats.
        loss_error: The standard error of `loss`.
        perplexity: e to the power of `loss`.
        seconds: The time without loading.
        against_first: The divergence from the first model; None for the first itself.
        bits_per_byte: The cross-entropy of a byte of the text, in bits; comparable between
            vocabularies.
        perplexity_ratio: Its perplexity divided by the first model's; None for the first itself.
        perplexity_ratio_error: The standard error of that ratio, from the differences token by
            token.
        regime: For a model that computes prompts differently from single tokens, which of the two
            this is; None if there is no difference.
        decode: For such a model, the figures of decode (each token predicted as it decodes), beside
            those of prefill.
    """

    model: Path
    device: str
    predicted: int
    loss: float
    loss_error: float
    perplexity: float
    seconds: float
    against_first: Divergence | None
    bits_per_byte: float
    perplexity_ratio: float | None = None
    perplexity_ratio_error: float | None = None
    regime: Regime | None = None
    decode: "Evaluation | None" = None


def summarize(
    path: Path,
    device: str,
    losses: torch.Tensor,
    byte_count: int,
    seconds: float,
    listener: Recorder | Comparer | None,
) -> Evaluation:
    """Of what each token cost, float64 [n]; `byte_count`: how long they are in UTF-8."""
    loss, loss_error = mean_and_error(losses)
    first = None if listener is None else listener.first_losses()
    ratio, ratio_error = (None, None) if first is None else perplexity_ratio(losses, first)
    return Evaluation(
        model=path,
        device=device,
        predicted=len(losses),
        loss=loss,
        loss_error=loss_error,
        perplexity=float(losses.mean().exp()),
        seconds=seconds,
        against_first=None if listener is None else listener.result(),
        bits_per_byte=loss * len(losses) / max(1, byte_count) / math.log(2),
        perplexity_ratio=ratio,
        perplexity_ratio_error=ratio_error,
    )
