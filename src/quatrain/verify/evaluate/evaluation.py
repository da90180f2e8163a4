"""How well one model predicted a text, in figures."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from quatrain.backbone.perplexity import mean_and_error, perplexity_ratio
from quatrain.verify.evaluate.divergence import Comparer, Divergence, Recorder
from quatrain.verify.evaluate.evaluated_models import Regime


@dataclass(frozen=True)
class Evaluation:
    """How well one model predicted a text.

    Attributes:
        model: The model's path.
        device: What it ran on, in words for people.
        predicted: How many tokens it predicted.
        loss: What each cost it on average, in nats.
        loss_error: The standard error of `loss`.
        perplexity: e to the power of `loss`.
        seconds: How long it took, loading not included.
        against_first: How far it is from the first model; None for the first itself.
        bits_per_byte: What a byte of the text costs it, in bits: comparable between vocabularies.
        perplexity_ratio: Its perplexity over the first model's; None for the first itself.
        perplexity_ratio_error: The standard error of that, of the differences token by token.
        regime: Of a model that computes a prompt otherwise than tokens one by one, which of the two
            this is; None where there is no difference.
        decode: Beside the figures of such a model's prefill those that users live with: each token
            predicted as it decodes.
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
