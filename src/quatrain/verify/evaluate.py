"""How well models predict a text, and how far their predictions are from the first one's."""

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
from quatrain.tokenizer import Tokenizer
from quatrain.verify.divergence import Comparer, FirstModel, Recorder
from quatrain.verify.evaluated_models import EvaluatedModel, is_float, open_any_evaluated_model
from quatrain.verify.evaluation import Evaluation, summarize
from quatrain.verify.side_by_side import SideBySide
from quatrain.verify.windows import Chunk, cut, window_logits

DEFAULT_TEXT = Path(__file__).with_name("evaluate.txt")
_CONTEXT = 512  # tokens read from an empty context on, where all models have room for them

Progress = Callable[[Path, int, int], None]  # (model, tokens done, tokens in all)


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
    stride: int | None = None,
) -> list[Evaluation]:
    """Measure programs, int4 checkpoints and floating-point models on a text, and how far they are
    from the first.

    Each chunk of 512 tokens, or of as many as all contexts hold, is read from an empty context,
    and all its tokens but the first are predicted. An 8da4w model of Vulkan's is measured twice, as
    it prefills and as it decodes, each against the first model's like where that has it too.

    Args:
        models: Paths of programs, on some runtime; of int4 checkpoints, which run eagerly; and of
            models in floating point, which are computed layer by layer.
        text: What to predict.
        tokens: How many of its tokens to read, from the first on.
        device: For programs, as in `load_runner`.
        emulate: For programs, as in `load_runner`.
        scheme: For checkpoints; None is 8da4w.
        progress: Called with a model's path, the tokens that are done, and all.
        as_on: GPU[@RELEASE] as which 8da4w is computed; None is any with integer dot products.
        tokenizer: A tokenizer.json; None is the first model's.
        stride: Let chunks overlap, each beginning so many tokens after the former, and count what
            the former did not predict: all but the first have more context. None: no overlap.

    Returns:
        One for each model, in their order.

    Raises:
        InputError: Where a model, its tokenizer or the text cannot be used, or vocabularies differ.
    """
    emulated_defect(emulate)
    paths = [Path(model) for model in models]
    if not any(map(is_program, paths)) and (emulate or device != "auto"):
        raise InputError("--device and --emulate are for programs, and none is given")
    if scheme and all(is_program(path) or is_float(path) for path in paths):
        raise InputError(
            "--scheme is for checkpoints, and none is given; a program has its own, which "
            "`quatrain retarget` changes"
        )
    arithmetic = _arithmetic(paths) if as_on is None else arithmetic_as_on(as_on)
    chosen = scheme or Scheme.DYNAMIC_INT8
    evaluated = [
        open_any_evaluated_model(path, device, emulate, chosen, "evaluate", Stages(), arithmetic)
        for path in paths
    ]
    _require_one_vocabulary(evaluated)
    words = evaluated[0].read_tokenizer(tokenizer)
    ids = words.encode(text)[:tokens]
    check_token_ids(ids, evaluated[0].vocab_size, words.model.id_to_token)
    context = min(_CONTEXT, *(one.context for one in evaluated))
    read = _cut_text(words, ids, context, stride)
    counted = sum(chunk.last - chunk.first for chunk in read.chunks)
    with FirstModel(evaluated, counted) as first:
        return [_both_regimes(model, read, first, progress) for model in evaluated]


@dataclass(frozen=True)
class _Text:
    """`bytes`: of what its `chunks` predict, in UTF-8."""

    chunks: list[Chunk]
    bytes: int


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
    read: _Text,
    first: FirstModel,
    progress: Progress,
) -> Evaluation:
    regime = evaluated.regime
    found = _measure(evaluated, evaluated.load, read, first.next(regime), progress)
    found = replace(found, regime=regime)
    if evaluated.load_decode is None:
        return found
    listener = first.next("decode")
    decode = _measure(evaluated, evaluated.load_decode, read, listener, progress)
    return replace(found, decode=replace(decode, regime="decode"))


def _cut_text(tokenizer: Tokenizer, ids: list[int], length: int, stride: int | None) -> _Text:
    if stride is not None and not 0 < stride < length:
        raise InputError(
            f"--stride {stride}: expected 1 to {length - 1}; a chunk has {length} tokens"
        )
    chunks = cut(ids, length, stride)
    if not chunks:
        raise InputError("the text (--text) has fewer than two tokens; there is nothing to predict")
    predicted = [chunk.ids[chunk.first + 1 : chunk.last + 1] for chunk in chunks]
    return _Text(chunks, sum(len(tokenizer.decode(ids).encode()) for ids in predicted))


def _measure(
    evaluated: EvaluatedModel,
    load: Callable[[], NamedRunner],
    read: _Text,
    listener: Recorder | Comparer | None,
    progress: Progress,
) -> Evaluation:
    done, total = 0, sum(len(chunk.ids) for chunk in read.chunks)
    progress(evaluated.path, done, total)  # before loading, which can take as long
    runner = load()
    if isinstance(runner, SideBySide):
        runner.expect([chunk.ids for chunk in read.chunks])
    losses: list[torch.Tensor] = []
    counted, begun = 0, time.perf_counter()
    for chunk in read.chunks:
        at = 0
        for rows in window_logits(runner, chunk.ids, evaluated.window):
            logs = torch.log_softmax(rows[max(0, chunk.first - at) : chunk.last - at], -1)
            start = max(at, chunk.first) + 1
            targets = torch.tensor(chunk.ids[start : start + len(logs)], dtype=torch.int64)
            losses.append(-logs[torch.arange(len(targets)), targets])
            if listener is not None:
                listener.see(counted, logs, losses[-1])
            at, done, counted = at + len(rows), done + len(rows), counted + len(logs)
            progress(evaluated.path, done, total)
    seconds = time.perf_counter() - begun
    measured = torch.cat(losses).double()
    return summarize(evaluated.path, runner.device, measured, read.bytes, seconds, listener)
