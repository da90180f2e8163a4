"""The floating-point model's predictions of the texts on which programs are measured."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from quatrain.atomic_files import take_room
from quatrain.tokenizer import Tokenizer
from quatrain.verify.evaluate.evaluated_models import EvaluatedModel
from quatrain.verify.evaluate.side_by_side import SideBySide
from quatrain.verify.evaluate.windows import window_logits


@dataclass(frozen=True)
class Answered:
    """The tokens of a prompt, and those that a program answered."""

    prompt: list[int]
    tokens: list[int]


@torch.inference_mode()
def read_reference(
    model: EvaluatedModel, chunks: Sequence[list[int]], answered: Sequence[Answered], file: Path,
    chunk_was_read: Callable[[], None],
) -> tuple[torch.Tensor, list[list[int]]]:  # fmt: skip
    """The log-probabilities of `chunks` in floating point, float32 [tokens, vocabulary], kept in
    `file`; and what `model` would have said in place of each token of `answered`."""
    asked = [[*one.prompt, *one.tokens] for one in answered]
    runner = model.load()
    assert isinstance(runner, SideBySide)
    runner.expect([*chunks, *asked])
    size = sum(map(len, chunks)) * model.vocab_size
    # In a file: 4096 tokens of a vocabulary of 128,000 are 2 GB.
    with file.open("wb") as opened:
        take_room(opened, size * 4)
    logs = torch.from_file(str(file), shared=True, size=size).view(-1, model.vocab_size)
    at = 0
    for chunk in chunks:
        for rows in window_logits(runner, chunk, model.window):
            logs[at : at + len(rows)] = rows.log_softmax(-1)
            at += len(rows)
        chunk_was_read()
    chosen = []
    for tokens, one in zip(asked, answered, strict=True):
        rows = [rows.argmax(-1) for rows in window_logits(runner, tokens, model.window)]
        chosen.append(torch.cat(rows).tolist()[len(one.prompt) - 1 : -1])
    return logs, chosen


def first_difference(
    tokenizer: Tokenizer, tokens: list[int], chosen: list[int]
) -> dict[str, Any] | None:
    """The text of an answer before the first of its `tokens` that floating point would not have
    `chosen`, that token, what it would have said, and the rest; None if all are the same."""
    pairs = zip(tokens, chosen, strict=True)
    at = next((i for i, (said, exact) in enumerate(pairs) if said != exact), None)
    if at is None:
        return None
    before = tokenizer.decode(tokens[:at])
    upto, whole = tokenizer.decode(tokens[: at + 1]), tokenizer.decode(tokens)
    instead = tokenizer.decode([*tokens[:at], chosen[at]])

    def shown(text: str, token: int) -> str:
        """The text without special tokens, such as the end."""
        return text[len(before) :] or tokenizer.decode([token], skip_special_tokens=False)

    return {
        "token": at,
        "before": before,
        "said": shown(upto, tokens[at]),
        "instead": shown(instead, chosen[at]),
        "after": whole[len(upto) :],
    }
