"""Answers in the two shapes of OpenAI's API, whole and as the chunks of a stream.

Source: https://platform.openai.com/docs/api-reference
"""

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from quatrain.serve.answer import End, Piece


def usage(end: End) -> dict[str, Any]:
    """How many tokens an answer took."""
    return {
        "prompt_tokens": end.prompt_tokens,
        "completion_tokens": end.tokens,
        "total_tokens": end.prompt_tokens + end.tokens,
        "prompt_tokens_details": {"cached_tokens": end.cached_tokens},
    }


@dataclass
class ChatShape:
    """Of an answer to `POST /v1/chat/completions`."""

    model: str
    logprobs: bool
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, pieces: list[Piece], end: End) -> dict[str, Any]:
        """The answer in one object."""
        message = {"role": "assistant", "content": _joined(pieces), "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": end.reason}
        choice["logprobs"] = self._logprobs(pieces)
        return self._object("chat.completion", choice) | {"usage": usage(end)}

    def first(self) -> dict[str, Any] | None:
        """The chunk before the first piece."""
        return self._chunk({"role": "assistant", "content": ""}, None, None)

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """One piece of a stream."""
        return self._chunk({"content": piece.text}, self._logprobs([piece]), None)

    def last(self, end: End) -> dict[str, Any]:
        """The chunk after the last piece."""
        return self._chunk({}, None, end.reason)

    def counted(self, end: End) -> dict[str, Any]:
        """The chunk that tells the usage alone."""
        return self._object("chat.completion.chunk") | {"usage": usage(end)}

    def _chunk(
        self, delta: dict[str, Any], logprobs: dict[str, Any] | None, reason: str | None
    ) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._object("chat.completion.chunk", choice)

    def _object(self, kind: str, *choices: dict[str, Any]) -> dict[str, Any]:
        head = {"id": self.id, "object": kind, "created": self.created, "model": self.model}
        return head | {"choices": list(choices)}

    def _logprobs(self, pieces: list[Piece]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        told = [piece.logprobs for piece in pieces if piece.logprobs]
        return {
            "content": [
                one.chosen.as_dict() | {"top_logprobs": [other.as_dict() for other in one.top]}
                for one in told
            ],
            "refusal": None,
        }


@dataclass
class CompletionShape:
    """Of an answer to `POST /v1/completions`."""

    model: str
    logprobs: bool
    id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    _offset: int = 0  # of the next token in the text

    def whole(self, pieces: list[Piece], end: End) -> dict[str, Any]:
        """The answer in one object."""
        return self._object(_joined(pieces), self._logprobs(pieces), end.reason) | {
            "usage": usage(end)
        }

    def first(self) -> dict[str, Any] | None:
        """The chunk before the first piece: none."""
        return None

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """One piece of a stream."""
        return self._object(piece.text, self._logprobs([piece]), None)

    def last(self, end: End) -> dict[str, Any]:
        """The chunk after the last piece."""
        return self._object("", None, end.reason)

    def counted(self, end: End) -> dict[str, Any]:
        """The chunk that tells the usage alone."""
        return self._object("", None, None) | {"choices": [], "usage": usage(end)}

    def _object(
        self, text: str, logprobs: dict[str, Any] | None, reason: str | None
    ) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": logprobs, "finish_reason": reason}
        head = {"id": self.id, "object": "text_completion", "created": self.created}
        return head | {"model": self.model, "choices": [choice]}

    def _logprobs(self, pieces: list[Piece]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        told = [piece.logprobs for piece in pieces if piece.logprobs]
        offsets = []
        for one in told:
            offsets.append(self._offset)
            self._offset += len(one.chosen.text)
        return {
            "tokens": [one.chosen.text for one in told],
            "token_logprobs": [one.chosen.logprob for one in told],
            "top_logprobs": [{other.text: other.logprob for other in one.top} for one in told],
            "text_offset": offsets,
        }


Shape = ChatShape | CompletionShape


def _joined(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)
