"""Text generation with any model that maps tokens and a position to logits."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from quatrain.errors import InputError, require_at_least
from quatrain.runtime.generation.sampling import GREEDY, Sampling
from quatrain.runtime.generation.token_choice import TokenChoice
from quatrain.runtime.runner import Runner, forward_in_parts

Stopped = Literal["end of sequence", "length", "context", "stop string", "interrupted"]


@dataclass(frozen=True)
class Generation:
    """The result of `generate`, and its speed.

    Attributes:
        prompt: The tokens of the prompt.
        tokens: The generated tokens, without the end-of-sequence token.
        logits: The model's logits for each of them.
        logprobs: The natural logarithm of each token's probability, before any sampling.
        stopped: What ended the text: an end-of-sequence token, `max_new_tokens`, a full context, a
            stop string, or "interrupted" by `on_token`.
        prefill_seconds: The time for the prompt, which includes the first token.
        decode_seconds: The time for all other tokens.
    """

    prompt: list[int]
    tokens: list[int]
    logits: list[float]
    logprobs: list[float]
    stopped: Stopped
    prefill_seconds: float
    decode_seconds: float

    @property
    def prefill_tokens_per_second(self) -> float:
        """Tokens of the prompt per second."""
        return len(self.prompt) / self.prefill_seconds

    @property
    def decode_tokens_per_second(self) -> float:
        """Steps per second after the first token, which the prefill gives; 0 if there are none."""
        return self.decode_steps / self.decode_seconds if self.decode_seconds else 0.0

    @property
    def decode_steps(self) -> int:
        """How many tokens were computed after the prompt, which gives the first: the last one is
        not, unless what ends the text came after it."""
        return max(0, len(self.tokens) - 1 + (self.stopped == "end of sequence"))


@torch.inference_mode()
def generate(
    runner: Runner,
    prompt: Sequence[int],
    *,
    context: int,
    max_new_tokens: int = 256,
    eos_ids: Sequence[int] = (),
    sampling: Sampling = GREEDY,
    on_token: Callable[[int], bool | None] | None = None,
) -> Generation:
    """Continue `prompt` until an end-of-sequence token, `max_new_tokens`, or a full context.

    Args:
        runner: The model, from `load_runner`; its context is reset first.
        prompt: Token ids, one or more.
        context: The number of tokens that its KV cache holds: `metadata["get_max_context_len"]` of
            a program's runner.
        max_new_tokens: The most tokens to generate.
        eos_ids: The tokens that end a text, such as `Tokenizer.eos_ids`.
        sampling: How tokens are chosen; by default always the most likely one.
        on_token: Called with each token as it is generated; if it returns True, the text ends.

    Raises:
        InputError: The prompt is empty or longer than `context`, or `max_new_tokens` is below 1.
    """
    require_at_least(1, "max_new_tokens", max_new_tokens)
    prompt = list(prompt)
    check_prompt(prompt, context)
    choose = TokenChoice(sampling)
    runner.reset()

    start = time.perf_counter()
    row = forward_in_parts(runner, torch.tensor([prompt]), 0).reshape(-1)
    token = choose(row, prompt)
    prefilled = time.perf_counter()
    written = _Written()
    stopped = written.go_on(
        runner, choose, prompt, token, row, context=context, most=max_new_tokens, eos_ids=eos_ids,
        on_token=on_token,
    )  # fmt: skip
    decoded = time.perf_counter() - prefilled
    return Generation(
        prompt, written.tokens, written.logits, written.logprobs, stopped,
        prefilled - start, decoded,
    )  # fmt: skip


@dataclass
class _Written:
    """The generation so far, with the fields of `Generation`."""

    tokens: list[int] = field(default_factory=list)
    logits: list[float] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def go_on(
        self, runner: Runner, choose: TokenChoice, prompt: list[int], token: int, row: torch.Tensor,
        *, context: int, most: int, eos_ids: Sequence[int],
        on_token: Callable[[int], bool | None] | None,
    ) -> Stopped:  # fmt: skip
        """Generate from `token` on, which was chosen by the logits `row` [V]; returns what ends
        it."""
        while len(self.tokens) < most:
            if token in eos_ids:
                return "end of sequence"
            self._add(token, row)
            if on_token and on_token(token):
                return "interrupted"
            if len(self.tokens) == most:
                break
            position = len(prompt) + len(self.tokens) - 1
            if position >= context:
                return "context"
            row = runner.forward(torch.tensor([[token]]), torch.tensor([position])).reshape(-1)
            token = choose(row, prompt + self.tokens)
        return "length"

    def _add(self, token: int, row: torch.Tensor) -> None:
        self.tokens.append(token)
        self.logits.append(float(row[token]))
        self.logprobs.append(float(row.double().log_softmax(-1)[token]))


def check_prompt(tokens: Sequence[int], context: int) -> None:
    """Raise `InputError` if the prompt is empty or longer than `context`."""
    if not tokens:
        raise InputError("the prompt has no tokens; give some text")
    if len(tokens) > context:
        raise InputError(
            f"the prompt has {len(tokens)} tokens, the program's context holds {context}; "
            "shorten it, or export with a larger --max-seq-len"
        )
