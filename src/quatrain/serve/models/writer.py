"""Writes answers with one model, token by token, for the thread that the model has."""

import time

import torch

from quatrain.runtime.generation.generate import generate
from quatrain.runtime.generation.kept_context import KeptContext
from quatrain.runtime.generation.stop_strings import TextUntil
from quatrain.runtime.load import ProgramRunner
from quatrain.serve.metrics import Metrics
from quatrain.serve.models.answer import Answer, ClientLeft, End, Piece
from quatrain.serve.models.logprobs import LastLogits, Logprobs, logprobs_of
from quatrain.serve.models.served_models import ServedModel

_PART = 128  # tokens of a prompt that are computed at once: a client that left is noticed between


class Leavable:
    """A runner whose calls raise `ClientLeft` once nobody waits for `answer` any more.

    A prompt is taken in parts, so that there are such calls; whole where `in_one` says so.
    """

    def __init__(self, runner: ProgramRunner, in_one: bool) -> None:
        self.runner = runner
        self.rewinds = getattr(runner, "rewinds", True)
        self.metadata = dict(runner.metadata)
        if not in_one:
            longest = int(self.metadata.get("get_max_seq_len") or _PART)
            self.metadata["get_max_seq_len"] = min(longest, _PART)
        self.answer: Answer | None = None

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
        """As `Runner.forward`."""
        if self.answer is not None and self.answer.cancelled.is_set():
            raise ClientLeft
        return self.runner.forward(tokens, input_pos)

    def reset(self) -> None:
        """Forget the context."""
        self.runner.reset()


class Writer:
    """Writes answers with `model`, one at a time.

    What a prompt has in common with the last text is not computed again, and what is new in parts,
    unless a defect is emulated: what some do depends on how many tokens are computed together.
    """

    def __init__(self, model: ServedModel, metrics: Metrics) -> None:
        self._model, self._metrics = model, metrics
        self._leavable = Leavable(model.runner, in_one=bool(model.emulates))
        self._context = KeptContext(self._leavable)
        self._runner = LastLogits(self._context)

    def write(self, answer: Answer) -> None:
        """Put the pieces of `answer` and its end, or the error that stopped it."""
        name = self._model.name
        self._metrics.queue_seconds.labels(name).observe(time.perf_counter() - answer.began)
        try:
            end = self._generate(answer)
        except ClientLeft:
            self._metrics.cancelled.labels(name).inc()
        except Exception as error:
            answer.put(error)
        else:
            self._metrics.answer_seconds.labels(name).observe(time.perf_counter() - answer.began)
            self._metrics.prompt_tokens.labels(name).inc(end.prompt_tokens)
            self._metrics.cached_tokens.labels(name).inc(end.cached_tokens)
            answer.put(end)

    def _generate(self, answer: Answer) -> End:
        asked, text = answer.asked, self._model.tokenizer.stream()
        until = TextUntil(asked.stop)
        written: list[int] = []
        computed = 0  # tokens of the prompt
        self._leavable.answer = answer
        if self._model.emulates:
            self._context.forget()

        def on_token(token: int) -> bool:
            nonlocal computed
            computed = computed or self._context.computed
            self._count(answer, first=not written)
            shown = until.push(text.push(token))
            answer.put(Piece(shown, self._logprobs(answer, token, written)))
            written.append(token)
            return until.found is not None

        generation = generate(
            self._runner, asked.prompt, context=self._model.context,
            max_new_tokens=asked.max_new_tokens, eos_ids=self._model.eos_ids,
            sampling=asked.sampling, on_token=on_token,
        )  # fmt: skip
        answer.put(Piece(until.push(text.finish()) + until.finish()))
        cached = len(asked.prompt) - (computed or self._context.computed)
        ended = generation.stopped == "end of sequence" or until.found is not None
        return End("stop" if ended else "length", len(asked.prompt), cached, len(written))

    def _count(self, answer: Answer, first: bool) -> None:
        self._metrics.tokens.labels(self._model.name).inc()
        if first:
            seconds = time.perf_counter() - answer.began
            self._metrics.first_token_seconds.labels(self._model.name).observe(seconds)

    def _logprobs(self, answer: Answer, token: int, written: list[int]) -> Logprobs | None:
        top = answer.asked.top_logprobs
        if top is None:
            return None
        before = written[-1] if written else None
        return logprobs_of(self._runner.logits, token, before, top, self._model.tokenizer)
