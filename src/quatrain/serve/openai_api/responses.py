"""Responses in OpenAI's API, complete or as chunks of a stream.

Source: https://platform.openai.com/docs/api-reference
"""

import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from quatrain.serve.models.answer import End, Piece
from quatrain.serve.openai_api.tool_calls import Call, ToolCallReader


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
    """Of an answer to `POST /v1/chat/completions`; `tools`: calls of tools are read out of it."""

    model: str
    logprobs: bool
    tools: bool = False
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    _reader: ToolCallReader = field(default_factory=ToolCallReader)

    def whole(self, pieces: list[Piece], end: End) -> dict[str, Any]:
        """The answer in one object."""
        message = {"role": "assistant", "content": _text_of(pieces), "refusal": None}
        reason = self._take_calls(message) or end.reason
        choice = {"index": 0, "message": message, "finish_reason": reason}
        choice["logprobs"] = self._logprobs(pieces)
        return self._object("chat.completion", choice) | {"usage": usage(end)}

    def _take_calls(self, message: dict[str, Any]) -> str | None:
        """Take the calls of tools out of its text; the reason why it ended there, with any."""
        text = self._reader.push(message["content"]) if self.tools else ""
        _, calls = self._reader.finish()
        if not calls:
            return None
        message |= {"content": text if text.strip() else None, "tool_calls": _called(calls)}
        return "tool_calls"

    def first(self) -> dict[str, Any] | None:
        """The chunk before the first piece."""
        return self._chunk({"role": "assistant", "content": ""}, None, None)

    def chunk(self, piece: Piece) -> dict[str, Any] | None:
        """One piece of a stream; None if there is nothing to say yet."""
        text = self._reader.push(piece.text) if self.tools else piece.text
        if not text and not piece.logprobs:
            return None
        return self._chunk({"content": text}, self._logprobs([piece]), None)

    def last(self, end: End) -> list[dict[str, Any]]:
        """The chunks after the last piece."""
        rest, calls = self._reader.finish()
        chunks = [self._chunk({"content": rest}, None, None)] if rest else []
        chunks += [
            self._chunk({"tool_calls": [{"index": index, **call}]}, None, None)
            for index, call in enumerate(_called(calls))
        ]
        return [*chunks, self._chunk({}, None, "tool_calls" if calls else end.reason)]

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
        return self._object(_text_of(pieces), self._logprobs(pieces), end.reason) | {
            "usage": usage(end)
        }

    def first(self) -> dict[str, Any] | None:
        """The chunk before the first piece: none."""
        return None

    def chunk(self, piece: Piece) -> dict[str, Any] | None:
        """One piece of a stream; None if there is nothing to say yet."""
        if not piece.text and not piece.logprobs:
            return None
        return self._object(piece.text, self._logprobs([piece]), None)

    def last(self, end: End) -> list[dict[str, Any]]:
        """The chunk after the last piece."""
        return [self._object("", None, end.reason)]

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


def _called(calls: list[Call]) -> list[dict[str, Any]]:
    """Each with an id of its own, by which the client says what came of it."""
    return [
        {
            "id": f"call_{uuid.uuid4().hex[:24]}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for name, arguments in calls
    ]


def _text_of(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)
