"""How the next token is chosen."""

import math
from functools import partial
from typing import Any

import pytest
import torch
from tests.support.models.tiny_programs import TEXT, Tiny

from quatrain import Conversation, InputError, generate_text, verify_program
from quatrain.runtime.generation.generate import generate
from quatrain.runtime.generation.sampling import Sampling


class _Fixed:
    """A runner that gives the same logits each time."""

    def __init__(self, *logits: float):
        self.logits = torch.tensor([logits])

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
        return self.logits

    def reset(self) -> None: ...


def _chosen(runner: _Fixed, temperature: float, count: int = 50) -> list[int]:
    sampling = Sampling(temperature)
    return generate(runner, [1], context=100, max_new_tokens=count, sampling=sampling).tokens


@pytest.mark.parametrize("temperature", [1e-40, 1e-320, 1e-3])
def test_a_tiny_temperature_is_the_most_likely_token(temperature: float) -> None:
    assert set(_chosen(_Fixed(-1.0, 30.0, 29.0, -math.inf), temperature)) == {1}


def test_a_temperature_samples_from_the_softmax() -> None:
    tokens = _chosen(_Fixed(0.0, math.log(3) / 2, -math.inf), 0.5, count=90)
    assert 0.6 < tokens.count(1) / 90 < 0.9 and 2 not in tokens
    assert len(set(_chosen(_Fixed(3.0, -2.0), 1e300))) == 2


def test_logits_of_a_broken_model_give_no_traceback() -> None:
    assert len(_chosen(_Fixed(0.0, math.nan), 1.0)) == 50


def test_each_token_comes_with_its_logit_and_probability() -> None:
    found = generate(_Fixed(1.0, 3.0, 2.0), [1], context=9, max_new_tokens=2)
    assert found.tokens == [1, 1] and found.logits == [3.0, 3.0]
    expected = torch.tensor([1.0, 3.0, 2.0]).log_softmax(0)[1]
    assert found.logprobs == pytest.approx([float(expected)] * 2)


def test_a_listener_ends_the_text() -> None:
    found = generate(_Fixed(0.0, 1.0), [0], context=9, on_token=lambda token: True)
    assert (found.tokens, found.stopped) == ([1], "interrupted")


class _Counted(_Fixed):
    """One of a program whose calls take `longest` tokens; notes each call."""

    def __init__(self, longest: int):
        super().__init__(0.0, 1.0)
        self.metadata = {"get_max_seq_len": longest}
        self.calls: list[tuple[int, int]] = []

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
        self.calls.append((int(input_pos[0]), tokens.shape[1]))
        return self.logits


@pytest.mark.parametrize(
    ("prompt", "calls"),
    [(4, [(0, 4)]), (9, [(0, 4), (4, 3), (7, 2)]), (8, [(0, 4), (4, 4)]), (1, [(0, 1)])],
)
def test_a_long_prompt_is_given_in_parts(prompt: int, calls: list) -> None:
    """As long as one call takes, none of a single token."""
    runner = _Counted(4)
    generate(runner, [0] * prompt, context=100, max_new_tokens=1)
    assert runner.calls == calls


@pytest.mark.parametrize("count", [0, -1, 1.5])
def test_no_tokens_to_generate_are_refused(count: Any, tiny: Tiny) -> None:
    """As the command line does."""
    program = tiny.programs["weight-only"]
    refused = partial(pytest.raises, InputError)
    with refused(match=f"max_new_tokens is {count}, expected 1 or more"):
        generate(_Fixed(0.0, 1.0), [1], context=100, max_new_tokens=count)
    with refused(match="max_new_tokens is"):
        generate_text(program, TEXT, max_new_tokens=count)
    with refused(match="max_new_tokens is"):
        Conversation(program, max_new_tokens=count)
    with refused(match="new_tokens is"):
        verify_program(program, tiny.checkpoint, ("reference",), (TEXT,), count)
