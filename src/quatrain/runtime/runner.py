"""The interface of every runtime, and the splitting of long calls."""

from collections.abc import Iterator
from typing import Protocol

import torch


class Runner(Protocol):
    """A model with its KV cache: a program on a runtime, or an eager backbone."""

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
        """Add tokens to the context, and return the logits after the last of them.

        Args:
            tokens: int64 [1, T].
            input_pos: int64 [1], the position of the first of them in the context.

        Returns:
            Floating-point logits [1, vocabulary].
        """
        ...

    def reset(self) -> None:
        """Forget the context."""
        ...


class NamedRunner(Runner, Protocol):
    """A `Runner` with the name of what it runs on."""

    device: str


def forward_in_parts(runner: Runner, tokens: torch.Tensor, start: int) -> torch.Tensor:
    """The logits [1, vocabulary] after `tokens` int64 [1, T] from position `start` on.

    In several calls if there are more tokens than one call takes ("get_max_seq_len"), as in
    ExecuTorch's `TextPrefiller`, but never a call of a single token, which 8da4w computes
    differently (`quatrain.arithmetic`).
    """
    total = tokens.shape[1]
    longest = longest_call(runner, total)
    logits = torch.empty(0)
    for part in parts_of(total, longest):
        logits = runner.forward(tokens[:, part], torch.tensor([start + part.start]))
    # Some programs give a row for each token.
    return logits.reshape(-1, logits.shape[-1])[-1:]


def longest_call(runner: Runner, length: int) -> int:
    """`length`, or what a call of `runner` takes at most where that is less."""
    return min(length, int(getattr(runner, "metadata", {}).get("get_max_seq_len") or length))


def parts_of(total: int, longest: int) -> Iterator[slice]:
    """Split the tokens into calls of at most `longest`, avoiding calls of a single token if
    possible."""
    longest, at = max(longest, 1), 0
    while at < total:
        one_would_be_left = total - at == longest + 1 and longest > 2
        part = slice(at, min(total, at + longest - one_would_be_left))
        yield part
        at = part.stop
