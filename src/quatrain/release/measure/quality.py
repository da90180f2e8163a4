"""How far a program is from floating point: over a text, token by token, and in what it answers."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from quatrain.backbone.perplexity import (
    kl_divergence,
    mean_and_error,
    perplexity_ratio,
    same_most_likely,
    token_losses,
)
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.program import open_program
from quatrain.release.measure.float_reference import Answered, first_difference, read_reference
from quatrain.runtime.load import is_vulkan
from quatrain.runtime.runner import NamedRunner
from quatrain.targets.as_on import arithmetic_as_on
from quatrain.tokenizer import Tokenizer, find_tokenizer
from quatrain.verify.evaluate.evaluated_models import (
    EvaluatedModel,
    open_evaluated_float_model,
    open_evaluated_model,
)
from quatrain.verify.evaluate.measure import cut_text
from quatrain.verify.evaluate.windows import Chunk, window_logits

_LENGTH = 512  # tokens of a chunk, read from an empty context
_SHOWN = 200  # tokens of which each one's divergence is kept


@dataclass(frozen=True)
class Quality:
    """How well a program predicts a text, in one of its regimes.

    Attributes:
        as_on: The GPU whose arithmetic it is; None: the usual.
        regime: "prefill" or "decode" where they differ, else None.
        tokens: How many were predicted.
        perplexity: The program's.
        reference_perplexity: Floating point's; None if there is none, as all below.
        ratio: The one over the other.
        ratio_error: The standard error of that, of the differences token by token.
        kl: The mean KL(floating point || program), in nats.
        kl_error: The standard error of that.
        top1_agreement: The part of tokens, 0 to 1, with the same most likely next one.
    """

    as_on: str | None
    regime: str | None
    tokens: int
    perplexity: float
    reference_perplexity: float | None = None
    ratio: float | None = None
    ratio_error: float | None = None
    kl: float | None = None
    kl_error: float | None = None
    top1_agreement: float | None = None


def measure_quality(
    program: Path,
    reference: Path | None,
    text: str,
    tokens: int,
    as_on: Sequence[str | None],
    answered: Sequence[Answered],
    advance: Callable[[float], None] = lambda part: None,
) -> dict[str, Any]:
    """Measure `program` against the model in floating point `reference` on `tokens` of `text`.

    Gives plain data: "rows", a `Quality` for each arithmetic and regime; "shown", the first tokens
    of the text with the divergence before each, in the first row; "answers", where floating point
    would first have said something else than each of `answered`, of which it reads the tokens.
    `advance` is called with the completed fraction.

    Raises `InputError` if a model cannot be evaluated, or the text has too few tokens.
    """
    first = _opened_program(program, None)
    tokenizer = Tokenizer.load(find_tokenizer(program))
    exact = None if reference is None else _opened_reference(reference, first.vocab_size)
    length = min(_LENGTH, first.context, *(() if exact is None else (exact.context,)))
    ids = tokenizer.encode(text)[:tokens]
    chunks = cut_text(tokenizer, ids, length, None).chunks
    opened = [(name, _opened_program(program, name)) for name in as_on]
    readings = sum(1 + (one.load_decode is not None) for _, one in opened)
    count, done = (readings + (exact is not None)) * len(chunks), itertools.count(1)

    def chunk_was_read() -> None:
        advance(next(done) / count)

    logs, chosen = None, []
    with TemporaryDirectory(prefix="quatrain-") as folder:
        if exact is not None:
            file = Path(folder) / "log-probabilities"
            texts = [chunk.ids for chunk in chunks]
            logs, chosen = read_reference(exact, texts, answered, file, chunk_was_read)
        found = [
            _measured(runner, window, logs, chunks, name, regime, chunk_was_read)
            for name, one in opened
            for runner, window, regime in _regimes(one)
        ]
    compared = [] if exact is None else zip(answered, chosen, strict=True)
    differences = [first_difference(tokenizer, one.tokens, said) for one, said in compared]
    divergences = found[0][1]
    shown = None if divergences is None else _first_tokens(tokenizer, chunks[0], divergences)
    rows = [asdict(row) for row, _ in found]
    return {"rows": rows, "shown": shown, "answers": differences}


def _opened_program(program: Path, as_on: str | None) -> EvaluatedModel:
    device = "reference" if is_vulkan(open_program(program)) else "executorch"
    arithmetic = arithmetic_as_on(as_on)
    return open_evaluated_model(program, device, None, Scheme.DYNAMIC_INT8, "release", arithmetic)


def _opened_reference(reference: Path, vocab_size: int) -> EvaluatedModel:
    exact = open_evaluated_float_model(reference, "release")
    if exact.vocab_size != vocab_size:
        raise InputError(
            f"--reference {reference}: has a vocabulary of {exact.vocab_size} tokens, but the "
            f"program has {vocab_size}; give the original model"
        )
    return exact


def _regimes(opened: EvaluatedModel) -> Iterator[tuple[NamedRunner, int, str | None]]:
    """(the program as it computes, the tokens of a call, what that is called), one after another:
    only one is in memory."""
    yield opened.load(), opened.window, opened.regime
    if opened.load_decode is not None:
        yield opened.load_decode(), opened.window, "decode"


@torch.inference_mode()
def _measured(
    runner: NamedRunner, window: int, logs: torch.Tensor | None, chunks: Sequence[Chunk],
    as_on: str | None, regime: str | None, chunk_was_read: Callable[[], None],
) -> tuple[Quality, torch.Tensor | None]:  # fmt: skip
    """The figures, and of each predicted token of the first chunk the divergence before it; `logs`
    are floating point's log-probabilities, float32 [tokens of the chunks, V], None without a
    model. The tokens that begin every text are not predicted."""
    losses, exact, divergences, same, at = [], [], [], 0, 0
    for chunk in chunks:
        predicting = slice(chunk.first, len(chunk.ids) - 1)
        rows = torch.cat(list(window_logits(runner, chunk.ids, window))).log_softmax(-1)[predicting]
        targets = torch.tensor(chunk.ids[chunk.first + 1 :])
        losses.append(token_losses(rows, targets).double())
        if logs is not None:
            want = logs[at : at + len(chunk.ids)][predicting]
            exact.append(token_losses(want, targets).double())
            divergences.append(kl_divergence(want, rows).clamp(min=0))
            same += same_most_likely(want, rows)
        at += len(chunk.ids)
        chunk_was_read()
    loss = torch.cat(losses)
    found = Quality(as_on, regime, len(loss), float(loss.mean().exp()))
    if logs is None:
        return found, None
    wanted = torch.cat(exact)
    ratio, ratio_error = perplexity_ratio(loss, wanted)
    kl, kl_error = mean_and_error(torch.cat(divergences))
    compared = replace(
        found,
        reference_perplexity=float(wanted.mean().exp()),
        ratio=ratio,
        ratio_error=ratio_error,
        kl=kl,
        kl_error=kl_error,
        top1_agreement=same / len(loss),
    )
    return compared, divergences[0]


def _first_tokens(
    tokenizer: Tokenizer, chunk: Chunk, divergences: torch.Tensor
) -> list[dict[str, Any]]:
    """The first tokens of a text, each with the divergence of the distributions that predict it."""
    shown = chunk.ids[chunk.first :][: _SHOWN + 1]
    texts = [tokenizer.decode([token], skip_special_tokens=False) for token in shown]
    pairs = zip(texts[1:], divergences.tolist(), strict=False)
    return [{"text": texts[0], "kl": None}, *({"text": t, "kl": kl} for t, kl in pairs)]
