"""How far models' predictions of a text are from the first one's."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
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


class Recorder:
    """Notes the first model's log-probabilities in `kept`, float32 [tokens, V]."""

    def __init__(self, kept: torch.Tensor):
        self.kept = kept

    def see(self, at: int, logs: torch.Tensor) -> None:
        """Take those of the tokens from `at` on, float32 [n, V]."""
        self.kept[at : at + len(logs)] = logs

    def result(self) -> None:
        """None: the first model is not compared with itself."""
        return None


class Comparer:
    """Compares another model's log-probabilities with those in `kept`, float32 [tokens, V]."""

    def __init__(self, kept: torch.Tensor):
        self.kept = kept
        self.divergence = 0.0
        self.same = self.seen = 0

    def see(self, at: int, logs: torch.Tensor) -> None:
        """Take those of the tokens from `at` on, float32 [n, V]."""
        want = self.kept[at : at + len(logs)]
        terms = want.exp() * (want - logs)
        # What the first model rules out (-inf, a pruned token) adds nothing.
        self.divergence += float(terms.masked_fill(want.isneginf(), 0).double().sum())
        self.same += int((want.argmax(-1) == logs.argmax(-1)).sum())
        self.seen += len(logs)

    def result(self) -> Divergence:
        """Over all tokens seen."""
        kl = self.divergence / self.seen
        return Divergence(max(0.0, kl) if math.isfinite(kl) else math.inf, self.same / self.seen)


class FirstModel:
    """Keeps the log-probabilities of the first model, in each of its regimes, in a file, and
    compares those of the others with them."""

    def __init__(self, evaluated: Sequence[EvaluatedModel], chunks: list[list[int]]) -> None:
        self.alone = len(evaluated) == 1
        self.shape = sum(map(len, chunks)), evaluated[0].vocab_size
        self.own = 1 + (evaluated[0].load_decode is not None)  # rows of the first model to come
        self.kept: dict[Regime | None, torch.Tensor] = {}

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
        kept = torch.from_file(file, shared=True, size=math.prod(self.shape)).view(self.shape)
        self.kept[regime] = kept
        return Recorder(kept)
