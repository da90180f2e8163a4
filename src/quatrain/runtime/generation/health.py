"""Whether generated text looks like a model at work, or like a broken kernel.

The thresholds were set on 103 generations of SmolLM2 (generations.json beside test_health.py): 50
healthy ones of both schemes, 50 garbled by the emulated defects, and 3 in which the intact model
loops. On 100 others (held_out.json) they raise no false alarm in 47 healthy ones, and catch all 50
garbled ones and 2 of 3 loops. At first they caught 44: garbled texts of 24 tokens passed, which is
why `_STUTTER` is there. Its value is from the first set too.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from quatrain.runtime.generation.generate import Stopped
from quatrain.runtime.runner import Runner, forward_in_parts

_FEWEST = 8  # tokens that a judgement needs
_LONGEST_RUN = 6  # one token so often in a row
_NEAR = 3  # a token is a near repeat of one so few tokens before
# A share of near repeats that no text has, however short: 0.25 in the beginnings, from 8 tokens on,
# of the healthy ones, 0.62 in those garbled by dq8ca-zp-binding-float.
_STUTTER = 0.44
# Noise: shares of tokens that repeat a near one, and the very last one, while the model is
# undecided (nats of mean entropy).
_NEAR_REPEATS, _INSTANT_REPEATS, _UNDECIDED = 0.14, 0.03, 2.0
_NOISE_SPAN = 24  # tokens that these shares need: in a shorter text, one repeat is a large part
_LOOP_SPAN = 48  # tokens after which few distinct ones are not a coincidence
_FEWEST_DISTINCT = 0.25  # as a share of all tokens
_FLAT = 7.0  # nats; 49152 equally likely tokens have 10.8
_COLLAPSED = 0.005  # nats


@dataclass(frozen=True)
class Health:
    """Measures of one generation, and its `problems` as whole sentences (none: healthy).

    `longest_run`: of one token in a row. `near_repeats`: the share of tokens that are among the
    three before them. `distinct`: different tokens as a share of all.
    `mean_entropy`: of the next-token distribution, in nats, over the steps with finite logits.
    """

    tokens: int
    longest_run: int
    near_repeats: float
    distinct: float
    mean_entropy: float
    nonfinite_steps: int
    problems: list[str] = field(default_factory=list)


class WatchedRunner:
    """A runner that notes the entropy of each of its outputs, for `judge`."""

    def __init__(self, runner: Runner):
        self.runner = runner
        self.entropies: list[float] = []  # NaN where logits were not finite

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
        """The runner's logits for `tokens` at `input_pos`."""
        # In parts beneath: one entropy for each call of what generates.
        logits = forward_in_parts(self.runner, tokens, int(input_pos))
        self.entropies.append(entropy(logits.reshape(-1, logits.shape[-1])[-1]))
        return logits

    def reset(self) -> None:
        """Forget the context, and the entropies."""
        self.runner.reset()
        self.entropies.clear()


def entropy(logits: torch.Tensor) -> float:
    """The entropy in nats of softmax(logits [V]); NaN where a logit is not finite."""
    below = logits.float() - logits.max()
    weights = below.exp()
    total = weights.sum(dtype=torch.float64)
    return float(total.log() - (weights * below).sum(dtype=torch.float64) / total)


def judge(
    tokens: Sequence[int],
    entropies: Sequence[float],
    stopped: Stopped,
) -> Health:
    """The health of the generated `tokens`; `entropies` of the steps that chose them."""
    finite = [value for value in entropies if value == value]
    bad_steps = len(entropies) - len(finite)
    mean = sum(finite) / len(finite) if finite else float("nan")
    run = _longest_run(tokens)
    distinct = len(set(tokens)) / len(tokens) if tokens else 1.0
    near = _repeats(tokens, _NEAR)
    health = Health(len(tokens), run, near, distinct, mean, bad_steps)
    problems = []
    if bad_steps:
        problems.append(f"{bad_steps} of {len(entropies)} steps gave logits that are not finite")
    if len(tokens) >= _FEWEST:
        problems += _problems(health, _repeats(tokens, 1), ends=stopped == "end of sequence")
    return replace(health, problems=problems)


def _problems(health: Health, instant_repeats: float, ends: bool) -> list[str]:
    """The problems that the measures show in a text of at least `_FEWEST` tokens.

    `instant_repeats`: the share of tokens that equal the previous one. `ends`: whether the text
    ends with an end-of-sequence token.
    """
    problems = []
    near, mean = health.near_repeats, health.mean_entropy
    if health.longest_run >= _LONGEST_RUN:
        problems.append(f"one token stands {health.longest_run} times in a row")
    if near > _STUTTER:
        problems.append(f"{near:.0%} of the tokens repeat one just before")
    elif (
        health.tokens >= _NOISE_SPAN
        and near > _NEAR_REPEATS
        and instant_repeats > _INSTANT_REPEATS
        and mean > _UNDECIDED
    ):
        problems.append(
            f"{near:.0%} of the tokens repeat one just before, with nothing else likely either "
            f"({mean:.1f} nats on average): noise, not text"
        )
    if health.tokens >= _LOOP_SPAN and health.distinct < _FEWEST_DISTINCT:
        ending = "" if ends else " and does not end"
        share = f"{health.distinct:.0%}"
        problems.append(f"the text loops{ending}: {share} of its tokens are distinct")
    if mean > _FLAT:
        problems.append(f"every token is about as likely ({mean:.1f} nats on average)")
    if mean < _COLLAPSED:
        problems.append(f"the model is certain of every token ({mean:.4f} nats on average)")
    return problems


def judge_logits(rows: Sequence[torch.Tensor]) -> Health:
    """The health of taking the most likely token at each step; `rows` are the steps' logits [V]."""
    tokens = [int(row.argmax()) for row in rows]
    return judge(tokens, [entropy(row) for row in rows], "length")


def _repeats(tokens: Sequence[int], span: int) -> float:
    """The share of tokens that are among the `span` tokens before them."""
    repeats = sum(token in tokens[max(0, i - span) : i] for i, token in enumerate(tokens))
    return repeats / max(1, len(tokens))


def _longest_run(tokens: Sequence[int]) -> int:
    longest = current = 0
    last = None
    for token in tokens:
        current = current + 1 if token == last else 1
        longest, last = max(longest, current), token
    return longest
