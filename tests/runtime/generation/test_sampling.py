"""Sampling is transformers', stop strings are not shown, and kept context changes no token."""

import math

import hypothesis.strategies as st
import pytest
import torch
import transformers
from hypothesis import given, settings
from tests.support.models.tiny_checkpoint import PARAMS, write_checkpoint

from quatrain.errors import InputError
from quatrain.runtime.generation.generate import Generation, generate
from quatrain.runtime.generation.kept_context import KeptContext
from quatrain.runtime.generation.sampling import Sampling
from quatrain.runtime.generation.stop_strings import TextUntil
from quatrain.runtime.generation.token_choice import TokenChoice, narrowed, penalized
from quatrain.verify.eager import load_eager

ROW = torch.randn(1, 300, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 3
CASES = {
    "top-k": (Sampling(1.0, top_k=7), [transformers.TopKLogitsWarper(7)]),
    "top-k of all": (Sampling(1.0, top_k=999), [transformers.TopKLogitsWarper(999)]),
    "top-p": (Sampling(1.0, top_p=0.8), [transformers.TopPLogitsWarper(0.8)]),
    "top-p of one token": (Sampling(1.0, top_p=1e-17), [transformers.TopPLogitsWarper(1e-17)]),
    "min-p": (Sampling(1.0, min_p=0.1), [transformers.MinPLogitsWarper(0.1)]),
    "all": (
        Sampling(0.7, top_k=40, top_p=0.9, min_p=0.05),
        [
            transformers.TemperatureLogitsWarper(0.7), transformers.TopKLogitsWarper(40),
            transformers.TopPLogitsWarper(0.9), transformers.MinPLogitsWarper(0.05),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_as_many_tokens_are_left_as_transformers_leaves(case):
    sampling, warpers = CASES[case]
    found = torch.from_numpy(narrowed(ROW[0].numpy() / sampling.temperature, sampling))
    wanted = ROW
    for warp in warpers:
        wanted = warp(torch.tensor([[0]]), wanted)
    torch.testing.assert_close(found, wanted[0])


def test_the_repetition_penalty_is_transformers():
    context = [3, 5, 5, 299]
    found = torch.from_numpy(penalized(ROW[0].numpy(), context, 1.3))
    wanted = transformers.RepetitionPenaltyLogitsProcessor(1.3)(torch.tensor([context]), ROW)
    torch.testing.assert_close(found, wanted[0])


def test_tokens_are_drawn_as_often_as_they_are_likely():
    choose, draws = TokenChoice(Sampling(0.7, top_p=0.95, seed=5)), 20_000
    row = torch.tensor([1.0, -2.0, 0.5, 2.0, -9.0])
    found = torch.bincount(torch.tensor([choose(row, []) for _ in range(draws)]), minlength=5)
    warped = transformers.TopPLogitsWarper(0.95)(torch.tensor([[0]]), row[None] / 0.7)
    chances = warped[0].softmax(-1)
    assert (found[chances == 0] == 0).all()
    deviations = (draws * chances * (1 - chances)).sqrt()
    assert ((found - draws * chances).abs() <= 4 * deviations).all()


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7, top_k=3, top_p=0.9, min_p=0.1)])
def test_logits_that_are_not_finite_give_a_token_too(broken, sampling):
    assert TokenChoice(sampling)(torch.tensor([1.0, broken, 2.0, 0.0]), []) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_penalty_beyond_the_range_of_float32_prints_no_warning(temperature):
    masked = torch.tensor([torch.finfo(torch.float32).min, 1.0])
    assert TokenChoice(Sampling(temperature, repetition_penalty=1.3))(masked, [0]) == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", math.inf, "--temperature is inf, expected a number of 0 or more"),
        ("temperature", math.nan, "--temperature is nan"),
        ("temperature", -1.0, "--temperature is -1"),
        ("seed", 10**23, r"--seed is 100000000000000000000000, expected .* 0 to 2\^64 - 1"),
        ("seed", -1, "--seed is -1"),
        ("top_k", -1, "--top-k is -1, expected a number of tokens, or 0 for all"),
        ("top_p", 0.0, "--top-p is 0.0, expected a probability above 0"),
        ("min_p", 1.5, "--min-p is 1.5, expected a probability from 0 to 1"),
        ("repetition_penalty", math.nan, "--repetition-penalty is nan, expected a number above 0"),
    ],
)
def test_what_cannot_be_sampled_with_is_refused(name, value, message):
    with pytest.raises(InputError, match=message):
        Sampling(**{"temperature": 1.0, name: value})


@pytest.mark.parametrize("option", [{"top_k": 5}, {"top_p": 0.5}, {"min_p": 0.1}])
def test_what_greedy_decoding_would_ignore_is_refused(option):
    with pytest.raises(InputError, match="with --temperature 0 the most likely one is taken"):
        Sampling(**option)


@settings(max_examples=200, deadline=None)
@given(
    st.text("abc", max_size=24),
    st.lists(st.text("abc", min_size=1, max_size=4), max_size=3),
    st.data(),
)
def test_text_goes_up_to_the_first_stop_string_however_it_comes(text, stops, data):
    until, shown, rest = TextUntil(stops), "", text
    while rest:
        length = data.draw(st.integers(1, 5))
        piece, rest = rest[:length], rest[length:]
        shown += until.push(piece)
        # What is shown at any time stands in the end, too.
        assert _up_to(text, stops).startswith(shown)
        if until.found:
            break
    assert shown + until.finish() == _up_to(text, stops)


def _up_to(text: str, stops: list[str]) -> str:
    """What stands before the stop string that is whole first, where `text` comes by letters."""
    for end in range(len(text) + 1):
        begins = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if begins:
            return text[: min(begins)]
    return text


class _Counted:
    def __init__(self, runner):
        self.runner, self.tokens = runner, 0

    def forward(self, tokens, input_pos, /):
        self.tokens += tokens.shape[1]
        return self.runner.forward(tokens, input_pos)

    def reset(self):
        self.runner.reset()


def test_a_kept_context_computes_what_is_new_alone(tmp_path):
    checkpoint = write_checkpoint(tmp_path / "c", n_layers=1)
    counted = _Counted(load_eager(checkpoint, "weight-only"))
    kept, whole = KeptContext(counted), load_eager(checkpoint, "weight-only")
    for prompt, new in (
        ([1, 2, 3, 4], 4), ([1, 2, 3, 4, 9, 8, 7], 3), ([1, 2, 3, 5], 1), ([1, 2, 3, 5], 1),
        ([6], 1),
    ):  # fmt: skip
        counted.tokens = 0
        found, wanted = (_first(runner, prompt) for runner in (kept, whole))
        assert counted.tokens == kept.computed == new
        assert found.logits == pytest.approx(wanted.logits, rel=1e-4)
    kept.forget()
    _first(kept, [6, 7])
    assert kept.computed == 2


def _first(runner, prompt: list[int]) -> Generation:
    return generate(runner, prompt, context=PARAMS["max_seq_len"], max_new_tokens=1)
