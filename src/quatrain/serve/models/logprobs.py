"""The log probabilities of generated tokens, and of their most likely alternatives."""

from dataclasses import dataclass
from typing import Any

import torch

from quatrain.runtime.runner import Runner
from quatrain.tokenizer import Tokenizer


class LastLogits:
    """A runner that keeps the logits of its last call, float64 [vocabulary]."""

    def __init__(self, runner: Runner):
        self.runner = runner
        self.logits = torch.empty(0)

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
        """The runner's logits for `tokens` at `input_pos`."""
        logits = self.runner.forward(tokens, input_pos)
        self.logits = logits.reshape(-1).double()
        return logits

    def reset(self) -> None:
        """Forget the context."""
        self.runner.reset()


@dataclass(frozen=True)
class TokenLogprob:
    """A token's text, and the natural logarithm of its probability at temperature 1."""

    text: str
    logprob: float

    def as_dict(self) -> dict[str, Any]:
        """As a chat answer states it; bytes are null where the token is part of a character."""
        partial = "\N{REPLACEMENT CHARACTER}" in self.text
        spelled = None if partial else list(self.text.encode())
        return {"token": self.text, "logprob": self.logprob, "bytes": spelled}


@dataclass(frozen=True)
class Logprobs:
    """Of a token that was written: its own, and those of the most likely ones."""

    chosen: TokenLogprob
    top: list[TokenLogprob]


def logprobs_of(
    logits: torch.Tensor, token: int, before: int | None, top: int, tokenizer: Tokenizer
) -> Logprobs:
    """The log probabilities that `logits` [vocabulary] give `token` and the `top` most likely ones.

    `before`: the token before it in the answer, if any; some tokenizers decode the first token of a
    text differently.
    """
    values = torch.log_softmax(logits, -1)

    def stated(one: int) -> TokenLogprob:
        return TokenLogprob(_text_after(before, one, tokenizer), _finite(float(values[one])))

    best = torch.topk(values, min(top, len(values))).indices.tolist() if top else []
    return Logprobs(stated(token), [stated(one) for one in best])


def _finite(logprob: float) -> float:
    """JSON has no infinity; OpenAI's word for "very unlikely" is -9999.0."""
    return logprob if logprob > -9999.0 else -9999.0


def _text_after(before: int | None, token: int, tokenizer: Tokenizer) -> str:
    known = [] if before is None else [before]
    start = tokenizer.decode(known, skip_special_tokens=False)
    return tokenizer.decode([*known, token], skip_special_tokens=False)[len(start) :]
