"""What a model in floating point says to the texts that a program is measured on."""

import tempfile
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


class FloatReference:
    """Floating point's log-probabilities of `chunks`, kept in a file, and what it would have said
    in place of each of `answered`; nothing without a model."""

    def __init__(
        self,
        model: EvaluatedModel | None,
        chunks: Sequence[list[int]],
        answered: Sequence[Answered],
        chunk_was_read: Callable[[], None],
    ) -> None:
        self.logs: torch.Tensor | None = None
        self.chosen: list[list[int]] = []
        self._answered = answered
        self._file = tempfile.TemporaryDirectory(prefix="quatrain-")
        if model is not None:
            self._read(model, chunks, chunk_was_read)

    def __enter__(self) -> "FloatReference":
        return self

    def __exit__(self, *error: object) -> None:
        self.logs = None
        self._file.cleanup()

    @torch.inference_mode()
    def _read(
        self, model: EvaluatedModel, chunks: Sequence[list[int]], chunk_was_read: Callable[[], None]
    ) -> None:
        asked = [[*one.prompt, *one.tokens] for one in self._answered]
        runner = model.load()
        assert isinstance(runner, SideBySide)
        runner.expect([*chunks, *asked])
        size = sum(map(len, chunks)) * model.vocab_size
        # In a file: 4096 tokens of a vocabulary of 128,000 are 2 GB.
        file = f"{self._file.name}/log-probabilities"
        with Path(file).open("wb") as opened:
            take_room(opened, size * 4)
        logs = torch.from_file(file, shared=True, size=size).view(-1, model.vocab_size)
        at = 0
        for chunk in chunks:
            for rows in window_logits(runner, chunk, model.window):
                logs[at : at + len(rows)] = rows.log_softmax(-1)
                at += len(rows)
            chunk_was_read()
        self.logs = logs
        for tokens, one in zip(asked, self._answered, strict=True):
            rows = [rows.argmax(-1) for rows in window_logits(runner, tokens, model.window)]
            self.chosen.append(torch.cat(rows).tolist()[len(one.prompt) - 1 : -1])

    def differences(self, tokenizer: Tokenizer) -> list[dict[str, Any] | None]:
        """Of each answer the text before the first token that floating point would not have said,
        that token, what it would have said, and the rest; None where it is the same to its end."""
        found: list[dict[str, Any] | None] = []
        for one, chosen in zip(self._answered, self.chosen, strict=True):
            pairs = zip(one.tokens, chosen, strict=True)
            at = next((i for i, (said, exact) in enumerate(pairs) if said != exact), None)
            found.append(None if at is None else _difference(tokenizer, one.tokens, at, chosen[at]))
        return found


def _difference(tokenizer: Tokenizer, tokens: list[int], at: int, chosen: int) -> dict[str, Any]:
    before = tokenizer.decode(tokens[:at])
    upto, whole = tokenizer.decode(tokens[: at + 1]), tokenizer.decode(tokens)
    instead = tokenizer.decode([*tokens[:at], chosen])

    def shown(text: str, token: int) -> str:
        """A special token, such as the end, is no part of a text."""
        return text[len(before) :] or tokenizer.decode([token], skip_special_tokens=False)

    return {
        "token": at,
        "before": before,
        "said": shown(upto, tokens[at]),
        "instead": shown(instead, chosen),
        "after": whole[len(upto) :],
    }
