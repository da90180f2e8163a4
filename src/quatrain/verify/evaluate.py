"""How well models predict a text, and how far their predictions are from the first one's."""

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.runtime.defects import emulated_defect
from quatrain.stages import Stages
from quatrain.tokenizer import Tokenizer, find_tokenizer
from quatrain.verify.evaluated_models import EvaluatedModel, is_checkpoint, open_evaluated_model
from quatrain.verify.windows import window_logits

DEFAULT_TEXT = Path(__file__).with_name("evaluate.txt")
_CONTEXT = 512  # tokens read from an empty context on, where all models have room for them

Progress = Callable[[Path, int, int], None]  # (model, tokens done, tokens in all)


@dataclass(frozen=True)
class Divergence:
    """How far a model is from the first.

    Attributes:
        kl: The mean KL(first || it) over the positions, in nats.
        top1_agreement: The part of positions, 0 to 1, with the same most likely token.
    """

    kl: float
    top1_agreement: float


@dataclass(frozen=True)
class Evaluation:
    """How well one model predicted a text.

    Attributes:
        model: The model's path.
        runtime: What it ran on, in words for people.
        predicted: How many tokens it predicted.
        loss: What each cost it on average, in nats.
        loss_error: The standard error of `loss`.
        perplexity: e to the power of `loss`.
        seconds: How long it took, loading not included.
        against_first: How far it is from the first model; None for the first itself.
    """

    model: Path
    runtime: str
    predicted: int
    loss: float
    loss_error: float
    perplexity: float
    seconds: float
    against_first: Divergence | None


def evaluate_models(
    models: Sequence[Path | str],
    text: str,
    tokens: int = 512,
    device: str = "auto",
    emulate: str | None = None,
    scheme: Scheme | None = None,
    progress: Progress = lambda model, done, total: None,
) -> list[Evaluation]:
    """Measure programs and int4 checkpoints on a text, and how far they are from the first.

    Each piece of 512 tokens, or of as many as all contexts hold, is read from an empty context,
    and all its tokens but the first are predicted. The tokenizer is the first model's.

    Args:
        models: Paths of programs, on some runtime, and of int4 checkpoints, which run eagerly.
        text: What to predict.
        tokens: How many of its tokens to read, from the first on.
        device: For programs, as in `load_runner`.
        emulate: For programs, as in `load_runner`.
        scheme: For checkpoints; None is 8da4w.
        progress: Called with a model's path, the tokens that are done, and all.

    Returns:
        One for each model, in their order.

    Raises:
        InputError: Where a model, its tokenizer or the text cannot be used, or vocabularies differ.
    """
    emulated_defect(emulate)
    paths = [Path(model) for model in models]
    if all(map(is_checkpoint, paths)) and (emulate or device != "auto"):
        raise InputError("--device and --emulate are for programs, and none is given")
    if scheme and not any(map(is_checkpoint, paths)):
        raise InputError(
            "--scheme is for checkpoints, and none is given; a program has its own, which "
            "`quatrain retarget` changes"
        )
    subjects = [
        open_evaluated_model(
            path, device, emulate, scheme or Scheme.DYNAMIC_INT8, "evaluate", Stages()
        )
        for path in paths
    ]
    first = subjects[0]
    for other in subjects[1:]:
        if other.vocab_size != first.vocab_size:
            raise InputError(
                f"{other.path}: has a vocabulary of {other.vocab_size} tokens, {first.path} of "
                f"{first.vocab_size}; only models of one vocabulary can be compared"
            )
    pieces = _pieces(first, text, tokens, min(_CONTEXT, *(s.context for s in subjects)))
    if len(subjects) == 1:
        return [_measure(first, pieces, None, progress)]
    with tempfile.TemporaryDirectory(prefix="quatrain-") as folder:
        # In a file: 4096 tokens of a vocabulary of 128,000 are 2 GB.
        shape = sum(map(len, pieces)), first.vocab_size
        file = str(Path(folder) / "log-probabilities")
        kept = torch.from_file(file, shared=True, size=math.prod(shape)).view(shape)
        found = [_measure(first, pieces, _Keep(kept), progress)]
        return found + [_measure(other, pieces, _Compare(kept), progress) for other in subjects[1:]]


class _Keep:
    """Notes the first model's log-probabilities, float32 [tokens, V]."""

    def __init__(self, kept: torch.Tensor):
        self.kept = kept

    def see(self, at: int, logs: torch.Tensor) -> None:
        self.kept[at : at + len(logs)] = logs

    def result(self) -> None:
        return None


class _Compare:
    """Compares another model's log-probabilities with those kept."""

    def __init__(self, kept: torch.Tensor):
        self.kept = kept
        self.divergence = 0.0
        self.same = self.seen = 0

    def see(self, at: int, logs: torch.Tensor) -> None:
        want = self.kept[at : at + len(logs)]
        terms = want.exp() * (want - logs)
        # What the first model rules out (-inf, a pruned token) adds nothing.
        self.divergence += float(terms.masked_fill(want.isneginf(), 0).double().sum())
        self.same += int((want.argmax(-1) == logs.argmax(-1)).sum())
        self.seen += len(logs)

    def result(self) -> Divergence:
        kl = self.divergence / self.seen
        return Divergence(max(0.0, kl) if math.isfinite(kl) else math.inf, self.same / self.seen)


def _pieces(evaluated: EvaluatedModel, text: str, tokens: int, length: int) -> list[list[int]]:
    ids = Tokenizer.load(find_tokenizer(evaluated.beside)).encode(text)[:tokens]
    pieces = [ids[at : at + length] for at in range(0, len(ids), length)]
    pieces = [piece for piece in pieces if len(piece) > 1]
    if not pieces:
        raise InputError("the text (--text) has fewer than two tokens; there is nothing to predict")
    return pieces


def _measure(
    evaluated: EvaluatedModel,
    pieces: list[list[int]],
    witness: _Keep | _Compare | None,
    progress: Progress,
) -> Evaluation:
    done, total = 0, sum(map(len, pieces))
    progress(evaluated.path, done, total)  # before loading, which can take as long
    runner = evaluated.load()
    losses: list[torch.Tensor] = []
    begun = time.perf_counter()
    for piece in pieces:
        at = 0
        for rows in window_logits(runner, piece, evaluated.window):
            logs = torch.log_softmax(rows, -1)
            targets = torch.tensor(piece[at + 1 : at + 1 + len(logs)], dtype=torch.int64)
            losses.append(-logs[torch.arange(len(targets)), targets])
            if witness is not None:
                witness.see(done, logs)
            at, done = at + len(logs), done + len(logs)
            progress(evaluated.path, done, total)
    seconds = time.perf_counter() - begun
    return _summary(evaluated.path, runner.device, torch.cat(losses).double(), seconds, witness)


def _summary(
    path: Path, runtime: str, losses: torch.Tensor, seconds: float, witness: _Keep | _Compare | None
) -> Evaluation:
    loss = float(losses.mean())
    return Evaluation(
        model=path,
        runtime=runtime,
        predicted=len(losses),
        loss=loss,
        loss_error=float(losses.std() / math.sqrt(len(losses))) if len(losses) > 1 else math.nan,
        perplexity=float(losses.mean().exp()),
        seconds=seconds,
        against_first=None if witness is None else witness.result(),
    )
