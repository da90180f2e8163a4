"""How well models predict a text, and how far their predictions are from the first one's."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from quatrain.arithmetic import VULKAN_ARITHMETIC, XNNPACK_ARITHMETIC, Arithmetic
from quatrain.checkpoint.open import is_program
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.program import open_program
from quatrain.runtime.defects import emulated_defect
from quatrain.runtime.generate import NamedRunner
from quatrain.runtime.load import is_vulkan
from quatrain.runtime.token_ids import check_token_ids
from quatrain.stages import Stages
from quatrain.targets.as_on import arithmetic_as_on
from quatrain.tokenizer import Tokenizer, chosen_tokenizer
from quatrain.verify.divergence import Comparer, Divergence, FirstModel, Recorder
from quatrain.verify.evaluated_models import (
    EvaluatedModel,
    Regime,
    open_evaluated_model,
)
from quatrain.verify.windows import window_logits

DEFAULT_TEXT = Path(__file__).with_name("evaluate.txt")
_CONTEXT = 512  # tokens read from an empty context on, where all models have room for them

Progress = Callable[[Path, int, int], None]  # (model, tokens done, tokens in all)


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
        regime: Of a model that computes a prompt otherwise than tokens one by one, which of the two
            this is; None where there is no difference.
        decode: Beside the figures of such a model's prefill those that users live with: each token
            predicted as it decodes.
    """

    model: Path
    runtime: str
    predicted: int
    loss: float
    loss_error: float
    perplexity: float
    seconds: float
    against_first: Divergence | None
    regime: Regime | None = None
    decode: "Evaluation | None" = None


def evaluate_models(
    models: Sequence[Path | str],
    text: str,
    tokens: int = 512,
    device: str = "auto",
    emulate: str | None = None,
    scheme: Scheme | None = None,
    progress: Progress = lambda model, done, total: None,
    as_on: str | None = None,
    tokenizer: Path | str | None = None,
) -> list[Evaluation]:
    """Measure programs and int4 checkpoints on a text, and how far they are from the first.

    Each chunk of 512 tokens, or of as many as all contexts hold, is read from an empty context,
    and all its tokens but the first are predicted. An 8da4w model of Vulkan's is measured twice, as
    it prefills and as it decodes, each against the first model's like where that has it too.

    Args:
        models: Paths of programs, on some runtime, and of int4 checkpoints, which run eagerly.
        text: What to predict.
        tokens: How many of its tokens to read, from the first on.
        device: For programs, as in `load_runner`.
        emulate: For programs, as in `load_runner`.
        scheme: For checkpoints; None is 8da4w.
        progress: Called with a model's path, the tokens that are done, and all.
        as_on: GPU[@RELEASE] as which 8da4w is computed; None is any with integer dot products.
        tokenizer: A tokenizer.json; None is the first model's.

    Returns:
        One for each model, in their order.

    Raises:
        InputError: Where a model, its tokenizer or the text cannot be used, or vocabularies differ.
    """
    emulated_defect(emulate)
    paths = [Path(model) for model in models]
    if not any(map(is_program, paths)) and (emulate or device != "auto"):
        raise InputError("--device and --emulate are for programs, and none is given")
    if scheme and all(map(is_program, paths)):
        raise InputError(
            "--scheme is for checkpoints, and none is given; a program has its own, which "
            "`quatrain retarget` changes"
        )
    arithmetic = _arithmetic(paths) if as_on is None else arithmetic_as_on(as_on)
    evaluated = [
        open_evaluated_model(
            path, device, emulate, scheme or Scheme.DYNAMIC_INT8, "evaluate", Stages(), arithmetic
        )
        for path in paths
    ]
    _require_one_vocabulary(evaluated)
    words = Tokenizer.load(chosen_tokenizer(tokenizer, evaluated[0].beside))
    ids = words.encode(text)[:tokens]
    check_token_ids(ids, evaluated[0].vocab_size, words.model.id_to_token)
    chunks = _chunks(ids, min(_CONTEXT, *(e.context for e in evaluated)))
    with FirstModel(evaluated, chunks) as first:
        return [_both_regimes(model, chunks, first, progress) for model in evaluated]


def _arithmetic(paths: Sequence[Path]) -> Arithmetic:
    """What checkpoints are computed in: as the programs beside them; Vulkan's where there are
    several kinds, or none."""
    programs = [open_program(path) for path in paths if is_program(path)]
    return (
        XNNPACK_ARITHMETIC if programs and not any(map(is_vulkan, programs)) else VULKAN_ARITHMETIC
    )


def _require_one_vocabulary(evaluated: Sequence[EvaluatedModel]) -> None:
    first = evaluated[0]
    for other in evaluated[1:]:
        if other.vocab_size != first.vocab_size:
            raise InputError(
                f"{other.path}: has a vocabulary of {other.vocab_size} tokens, {first.path} of "
                f"{first.vocab_size}; only models of one vocabulary can be compared"
            )


def _both_regimes(
    evaluated: EvaluatedModel,
    chunks: list[list[int]],
    first: FirstModel,
    progress: Progress,
) -> Evaluation:
    regime = evaluated.regime
    found = _measure(evaluated, evaluated.load, chunks, first.next(regime), progress)
    found = replace(found, regime=regime)
    if evaluated.load_decode is None:
        return found
    listener = first.next("decode")
    decode = _measure(evaluated, evaluated.load_decode, chunks, listener, progress)
    return replace(found, decode=replace(decode, regime="decode"))


def _chunks(ids: list[int], length: int) -> list[list[int]]:
    chunks = [ids[at : at + length] for at in range(0, len(ids), length)]
    chunks = [chunk for chunk in chunks if len(chunk) > 1]
    if not chunks:
        raise InputError("the text (--text) has fewer than two tokens; there is nothing to predict")
    return chunks


def _measure(
    evaluated: EvaluatedModel,
    load: Callable[[], NamedRunner],
    chunks: list[list[int]],
    listener: Recorder | Comparer | None,
    progress: Progress,
) -> Evaluation:
    done, total = 0, sum(map(len, chunks))
    progress(evaluated.path, done, total)  # before loading, which can take as long
    runner = load()
    losses: list[torch.Tensor] = []
    begun = time.perf_counter()
    for chunk in chunks:
        at = 0
        for rows in window_logits(runner, chunk, evaluated.window):
            logs = torch.log_softmax(rows, -1)
            targets = torch.tensor(chunk[at + 1 : at + 1 + len(logs)], dtype=torch.int64)
            losses.append(-logs[torch.arange(len(targets)), targets])
            if listener is not None:
                listener.see(done, logs)
            at, done = at + len(logs), done + len(logs)
            progress(evaluated.path, done, total)
    seconds = time.perf_counter() - begun
    return _summary(evaluated.path, runner.device, torch.cat(losses).double(), seconds, listener)


def _summary(
    path: Path,
    runtime: str,
    losses: torch.Tensor,
    seconds: float,
    listener: Recorder | Comparer | None,
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
        against_first=None if listener is None else listener.result(),
    )
