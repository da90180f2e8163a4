"""An answer on its way from the thread that writes it to the event loop that sends it."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from quatrain.runtime.generation.sampling import Sampling
from quatrain.serve.models.logprobs import Logprobs


@dataclass(frozen=True)
class Asked:
    """What is to be written.

    Attributes:
        prompt: The token ids that it continues.
        max_new_tokens: How many tokens at most.
        sampling: How each is chosen.
        stop: Texts that end it; they are no part of it.
        top_logprobs: Of how many tokens besides the chosen one to tell the probability; None tells
            none at all.
    """

    prompt: list[int]
    max_new_tokens: int
    sampling: Sampling
    stop: list[str]
    top_logprobs: int | None


@dataclass(frozen=True)
class Piece:
    """A part of the text, often that of one token, sometimes empty; with the token's
    probabilities where they were asked for."""

    text: str
    logprobs: Logprobs | None = None


@dataclass(frozen=True)
class End:
    """Why an answer ended, as OpenAI's API calls it, and how many tokens it took.

    Attributes:
        reason: "stop" at an end-of-sequence token or a stop string, or "length".
        prompt_tokens: How many the prompt has.
        cached_tokens: How many of them were in the KV cache already.
        tokens: How many were written.
    """

    reason: Literal["stop", "length"]
    prompt_tokens: int
    cached_tokens: int
    tokens: int


class ClientLeft(Exception):
    """Nobody waits for the answer any more."""


class Answer:
    """One answer: `put` by a model's thread, read by the event loop in which it was made.

    Attributes:
        asked: What is to be written.
        began: When the request came, as `time.perf_counter` counts.
        cancelled: Set once nobody waits for it.
    """

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.began = time.perf_counter()
        self.cancelled = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Piece | End | Exception] = asyncio.Queue()

    def put(self, event: Piece | End | Exception) -> None:
        """From any thread: the next piece, the end, or why there is none."""
        with suppress(RuntimeError):  # the server has closed its loop
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def events(self) -> AsyncIterator[Piece | End]:
        """The pieces as they come, and the end. Raises what was put in place of one."""
        while True:
            event = await self._events.get()
            if isinstance(event, Exception):
                raise event
            yield event
            if isinstance(event, End):
                return
