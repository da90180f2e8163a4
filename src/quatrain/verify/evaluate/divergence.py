"""The divergence of models' predictions from those of the first model."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from quatrain.backbone.perplexity import kl_divergence, same_most_likely
from quatrain.verify.evaluate.evaluated_models import EvaluatedModel, Regime
from quatrain.verify.evaluate.evaluation_log import EvaluationLog, Step


@dataclass(frozen=True)
class Divergence:
    """The divergence of a model from the first.

    Attributes:
        kl: The mean of KL(first || model) over the positions, in nats.
        top1_agreement: The fraction of positions, 0 to 1, with the same most likely token.
    """

    kl: float
    top1_agreement: float


@dataclass
class Kept:
    """Of the first model: log-probabilities float32 [tokens, V], and what each token that has a
    successor cost, in the order in which it was seen."""

    logs: torch.Tensor
    losses: list[torch.Tensor] = field(default_factory=list)


class Recorder:
    """Notes the first model's predictions in `kept`."""

    def __init__(self, kept: Kept):
        self.kept = kept

    def see(self, at: int, logs: torch.Tensor, losses: torch.Tensor) -> None:
        """Take those of the tokens from `at` on, float32 [n, V], and what the next ones cost."""
        self.kept.logs[at : at + len(logs)] = logs
        self.kept.losses.append(losses)

    def restore(self, losses: list[torch.Tensor], steps: Sequence[Step], seen: int) -> None:
        """Go on after `steps`, whose predictions, `seen` ones, are in `kept` already; they cost
        `losses`."""
        self.kept.losses.extend(losses)

    def so_far(self) -> tuple[float, int]:
        """Nothing: the first model is not compared with itself."""
        return 0.0, 0

    def result(self) -> None:
        """None: the first model is not compared with itself."""
        return None

    def first_losses(self) -> None:
        """Always None, as for `first_logits`."""
        return None


class Comparer:
    """Compares another model's predictions with those in `kept`."""

    def __init__(self, kept: Kept):
        self.kept = kept
        self.divergence = 0.0
        self.same = self.seen = 0

    def see(self, at: int, logs: torch.Tensor, losses: torch.Tensor) -> None:
        """Take those of the tokens from `at` on, float32 [n, V], and what the next ones cost."""
        want = self.kept.logs[at : at + len(logs)]
        self.divergence += float(kl_divergence(want, logs).sum())
        self.same += same_most_likely(want, logs)
        self.seen += len(logs)

    def restore(self, losses: list[torch.Tensor], steps: Sequence[Step], seen: int) -> None:
        """Go on after `steps`, of `seen` predictions, which cost `losses`."""
        self.seen = seen
        for step in steps[-1:]:
            self.divergence, self.same = step.divergence, step.same

    def so_far(self) -> tuple[float, int]:
        """(the sum of KL(first || it), how many most likely tokens are the same)."""
        return self.divergence, self.same

    def result(self) -> Divergence:
        """Over all tokens seen."""
        kl = self.divergence / self.seen
        return Divergence(max(0.0, kl) if math.isfinite(kl) else math.inf, self.same / self.seen)

    def first_losses(self) -> torch.Tensor:
        """What each token cost the first model, float64 [n]."""
        return torch.cat(self.kept.losses).double()


class FirstModel:
    """Keeps the log-probabilities of the first model, in each of its regimes, in a file of `log`'s
    folder, and compares those of the others with them."""

    def __init__(
        self, evaluated: Sequence[EvaluatedModel], tokens: int, log: EvaluationLog
    ) -> None:
        self.alone = len(evaluated) == 1
        self.shape = tokens, evaluated[0].vocab_size
        self.own = 1 + (evaluated[0].load_decode is not None)  # rows of the first model to come
        self.kept: dict[Regime | None, Kept] = {}
        self.log = log

    def next(self, regime: Regime | None) -> Recorder | Comparer | None:
        """What is to see the next model's predictions, the first model's first."""
        if self.alone:
            return None
        if self.own == 0:
            return Comparer(self.kept.get(regime, next(iter(self.kept.values()))))
        self.own -= 1
        # In a file: 4096 tokens of a vocabulary of 128,000 are 2 GB.
        size = math.prod(self.shape)
        file = self.log.reserve(f"log-probabilities-{self.own}", size * 4)
        logs = torch.from_file(str(file), shared=True, size=size).view(self.shape)
        kept = self.kept[regime] = Kept(logs)
        return Recorder(kept)
