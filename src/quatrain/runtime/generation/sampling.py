"""Sampling options. This module does not import torch, so that a wrong option is refused
immediately."""

import math
from dataclasses import dataclass, replace

from quatrain.errors import InputError


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen from logits, in the order of transformers' generation and with
    its names: repetition penalty, temperature, top-k, top-p, min-p.

    Attributes:
        temperature: 0 always takes the most likely token; above 0, tokens are sampled from
            softmax(logits / temperature).
        top_k: Sample among this many of the most likely tokens; 0 means all.
        top_p: Sample among the most likely tokens whose probabilities add up to this, 0 to 1.
        min_p: Exclude tokens less likely than this times the most likely one, 0 to 1.
        repetition_penalty: Positive logits of tokens in the context are divided by this, negative
            ones multiplied (Keskar et al., 2019); 1 changes nothing.
        seed: The random seed, from 0 to 2^64 - 1.

    Raises:
        InputError: A value is invalid, or has no effect because the temperature is 0.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        wrong = {
            "--temperature": (0 <= self.temperature < math.inf, "a number of 0 or more"),
            "--top-k": (self.top_k >= 0, "a number of tokens, or 0 for all"),
            "--top-p": (0 < self.top_p <= 1, "a probability above 0, at most 1"),
            "--min-p": (0 <= self.min_p <= 1, "a probability from 0 to 1"),
            "--repetition-penalty": (0 < self.repetition_penalty < math.inf, "a number above 0"),
            "--seed": (0 <= self.seed < 2**64, "an integer from 0 to 2^64 - 1"),
        }
        for option, (right, expected) in wrong.items():
            if not right:
                value = getattr(self, option[2:].replace("-", "_"))
                raise InputError(f"{option} is {value}, expected {expected}")
        narrowed = {"--top-k": self.top_k > 0, "--top-p": self.top_p < 1, "--min-p": self.min_p > 0}
        for option, given in narrowed.items():
            if given and self.temperature == 0:
                raise InputError(
                    f"{option} chooses among tokens that are drawn, and with --temperature 0 the "
                    "most likely one is taken; give a --temperature above 0, or leave it out"
                )

    def reseeded(self, turn: int) -> "Sampling":
        """The same with the seed of the answer after `turn` others."""
        return replace(self, seed=(self.seed + turn) % 2**64)


GREEDY = Sampling()
