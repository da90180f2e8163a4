"""Measures one model's loss on each token of a text, chunk by chunk."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from quatrain.backbone.perplexity import token_losses
from quatrain.errors import InputError
from quatrain.runtime.runner import NamedRunner
from quatrain.tokenizer import Tokenizer
from quatrain.verify.evaluate.divergence import Comparer, FirstModel, Recorder
from quatrain.verify.evaluate.evaluated_models import EvaluatedModel, Regime
from quatrain.verify.evaluate.evaluation import Evaluation, summarize
from quatrain.verify.evaluate.evaluation_log import EvaluationLog, Step
from quatrain.verify.evaluate.side_by_side import SideBySide
from quatrain.verify.evaluate.windows import Chunk, cut, window_logits

Progress = Callable[[Path, int, int], None]  # (model, tokens done, tokens in all)


@dataclass(frozen=True)
class ReadText:
    """`bytes`: of what its `chunks` predict, in UTF-8."""

    chunks: list[Chunk]
    bytes: int

    def counted(self, chunks: int | None = None) -> int:
        """How many predictions of the first `chunks`, or of all, count: where no stride is asked
        for those of a chunk's last token too, which has no successor to cost anything."""
        return sum(chunk.last - chunk.first for chunk in self.chunks[:chunks])


def cut_text(tokenizer: Tokenizer, ids: list[int], length: int, stride: int | None) -> ReadText:
    """The chunks of a text, as `windows.cut` has them; each begins as the text does.

    Raises `InputError` if there is nothing to predict, no such stride, or no room in `length`.
    """
    begin = tokenizer.begin(ids)
    if len(begin) >= length:
        raise InputError(
            f"{tokenizer.source}: begins a text with {len(begin)} tokens, and a chunk has "
            f"{length}; give the model's own tokenizer with --tokenizer"
        )
    most = length - max(1, len(begin))
    if stride is not None and not 0 < stride <= most:
        raise InputError(f"--stride {stride}: expected 1 to {most}; a chunk has {length} tokens")
    chunks = cut(begin, ids[len(begin) :], length, stride)
    if not chunks:
        raise InputError("the text (--text) has fewer than two tokens; there is nothing to predict")
    if stride is not None and len(chunks) == 1:
        raise InputError(
            f"--stride {stride}: the {len(ids)} tokens that are read are one chunk, with no other "
            "to overlap; give more --tokens or a longer --text, or leave it out"
        )
    predicted = [chunk.ids[chunk.first + 1 : chunk.last + 1] for chunk in chunks]
    return ReadText(chunks, sum(len(tokenizer.decode(ids).encode()) for ids in predicted))


def measure_both_regimes(
    row: str,
    evaluated: EvaluatedModel,
    read: ReadText,
    first: FirstModel,
    log: EvaluationLog,
    progress: Progress,
) -> Evaluation:
    """What a model makes of the text in each of its regimes; `row` names it in the log."""

    def measured(row: str, load: Callable[[], NamedRunner], regime: Regime | None) -> Evaluation:
        reading = _Reading(evaluated, read, first.next(regime), log, progress)
        return replace(reading.measure(row, load), regime=regime)

    found = measured(row, evaluated.load, evaluated.regime)
    if evaluated.load_decode is None:
        return found
    return replace(found, decode=measured(f"{row} decode", evaluated.load_decode, "decode"))


@dataclass(frozen=True)
class _Reading:
    evaluated: EvaluatedModel
    read: ReadText
    listener: Recorder | Comparer | None
    log: EvaluationLog
    progress: Progress

    def measure(self, row: str, load: Callable[[], NamedRunner]) -> Evaluation:
        """Go on after what the log holds of `row`; `load` gives the model, if anything is left."""
        chunks, steps = self.read.chunks, self.log.steps(row)
        losses = [torch.tensor(step.losses, dtype=torch.float32) for step in steps]
        if self.listener is not None:
            self.listener.restore(losses, steps, self.read.counted(len(steps)))
        self._show(chunks[: len(steps)])  # before loading, which can take as long
        runner = load() if len(steps) < len(chunks) else None
        device = self._device(runner, steps)
        before = steps[-1].seconds if steps else 0.0
        begun = time.perf_counter()
        if isinstance(runner, SideBySide):
            runner.expect([chunk.ids for chunk in chunks], len(steps))
        for index in range(len(steps), len(chunks)):
            assert runner is not None
            losses.append(torch.cat(list(self._losses(runner, index))))
            seconds = before + time.perf_counter() - begun
            far = (0.0, 0) if self.listener is None else self.listener.so_far()
            self.log.note(row, Step(device, seconds, losses[-1].tolist(), *far))
        seconds = before + time.perf_counter() - begun
        found = torch.cat(losses).double()
        return summarize(
            self.evaluated.path, device, found, self.read.bytes, seconds, self.listener
        )

    def _device(self, runner: NamedRunner | None, steps: list[Step]) -> str:
        """What all of it is computed on. Raises `InputError` if it was begun on another."""
        if runner is None:
            return steps[-1].runtime
        if steps and steps[-1].runtime != runner.device:
            raise InputError(
                f"{self.evaluated.path}: was begun on {steps[-1].runtime}, and now it is "
                f"{runner.device}; give the former as --device, or begin again with another folder "
                "for --resume"
            )
        return runner.device

    def _losses(self, runner: NamedRunner, index: int) -> Iterator[torch.Tensor]:
        """What each token of a chunk cost that counts."""
        chunk, at, counted = self.read.chunks[index], 0, self.read.counted(index)
        for rows in window_logits(runner, chunk.ids, self.evaluated.window):
            logs = torch.log_softmax(rows[max(0, chunk.first - at) : chunk.last - at], -1)
            start = max(at, chunk.first) + 1
            targets = torch.tensor(chunk.ids[start : start + len(logs)], dtype=torch.int64)
            losses = token_losses(logs[: len(targets)], targets)
            if self.listener is not None:
                self.listener.see(counted, logs, losses)
            yield losses
            at, counted = at + len(rows), counted + len(logs)
            self._show(self.read.chunks[:index], at)

    def _show(self, done: list[Chunk], at: int = 0) -> None:
        total = sum(len(chunk.ids) for chunk in self.read.chunks)
        self.progress(self.evaluated.path, sum(len(chunk.ids) for chunk in done) + at, total)
