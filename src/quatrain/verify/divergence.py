"""How far models' predictions of a text are from the first one's."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from quatrain.verify.evaluated_models import EvaluatedModel, Regime


@dataclass(frozen=True)
class Divergence:
    """How far a model is from the first.

    Attributes:
        kl: The mean KL(first || it) over the positions, in nats.
        top1_agreement: The part of positions, 0 to 1, with the same most likely token.
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

    def result(self) -> None:
        """None: the first model is not compared with itself."""
        return None

    def loss_differences(self) -> None:
        """None, likewise."""
        return None


class Comparer:
    """Compares another model's predictions with those in `kept`."""

    def __init__(self, kept: Kept):
        self.kept = kept
        self.divergence = 0.0
        self.same = self.seen = 0
        self.losses: list[torch.Tensor] = []

    def see(self, at: int, logs: torch.Tensor, losses: torch.Tensor) -> None:
        """Take those of the tokens from `at` on, float32 [n, V], and what the next ones cost."""
        want = self.kept.logs[at : at + len(logs)]
        terms = want.exp() * (want - logs)
        # What the first model rules out (-inf, a pruned token) adds nothing.
        self.divergence += float(terms.masked_fill(want.isneginf(), 0).double().sum())
        self.same += int((want.argmax(-1) == logs.argmax(-1)).sum())
        self.seen += len(logs)
        self.losses.append(losses)

    def result(self) -> Divergence:
        """Over all tokens seen."""
        kl = self.divergence / self.seen
        return Divergence(max(0.0, kl) if math.isfinite(kl) else math.inf, self.same / self.seen)

    def loss_differences(self) -> torch.Tensor:
        """By how much each token cost more than it cost the first model, float64 [n]."""
        return torch.cat(self.losses).double() - torch.cat(self.kept.losses).double()


class FirstModel:
    """Keeps the log-probabilities of the first model, in each of its regimes, in a file, and
    compares those of the others with them."""

    def __init__(self, evaluated: Sequence[EvaluatedModel], tokens: int) -> None:
        self.alone = len(evaluated) == 1
        self.shape = tokens, evaluated[0].vocab_size
        self.own = 1 + (evaluated[0].load_decode is not None)  # rows of the first model to come
        self.kept: dict[Regime | None, Kept] = {}

    def __enter__(self) -> "FirstModel":
        self.folder = tempfile.TemporaryDirectory(prefix="quatrain-")
        return self

    def __exit__(self, *_: object) -> None:
        self.kept.clear()
        self.folder.cleanup()

    def next(self, regime: Regime | None) -> Recorder | Comparer | None:
        """What is to see the next model's predictions, the first model's first."""
        if self.alone:
            return None
        if self.own == 0:
            return Comparer(self.kept.get(regime, next(iter(self.kept.values()))))
        self.own -= 1
        # In a file: 4096 tokens of a vocabulary of 128,000 are 2 GB.
        file = str(Path(self.folder.name) / f"log-probabilities-{self.own}")
        logs = torch.from_file(file, shared=True, size=math.prod(self.shape)).view(self.shape)
        kept = self.kept[regime] = Kept(logs)
        return Recorder(kept)
