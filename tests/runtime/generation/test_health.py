"""Generation health: no false alarm on healthy text, and every garbled one caught.

generations.json holds tokens and entropies of SmolLM2-135M-Instruct (int4, group 32) answering 50
questions, greedily or sampled: 50 healthy ones of both schemes, 50 of the 8da4w program under
emulated defects, and 3 where the intact model falls into a loop, as so small a model does.
"""

import json
from pathlib import Path

import pytest
import torch

from quatrain.runtime.generation.generate import generate
from quatrain.runtime.generation.health import WatchedRunner, entropy, judge, judge_logits

RECORDED = json.loads((Path(__file__).parent / "generations.json").read_text())


# Others, on which no threshold was set; see record_generations.py.
HELD_OUT = json.loads((Path(__file__).parent / "held_out.json").read_text())


def _flagged(generations: list[dict]) -> list[bool]:
    judged = (judge(one["tokens"], one["entropies"], one["stopped"]) for one in generations)
    return [bool(health.problems) for health in judged]


@pytest.mark.parametrize(("kind", "count"), [("healthy", 50), ("looping", 3), ("garbled", 50)])
def test_recorded_generations_are_classified(kind: str, count: int) -> None:
    assert _flagged(RECORDED[kind]) == [kind != "healthy"] * count


@pytest.mark.parametrize(
    ("kind", "count", "flagged"), [("healthy", 47, 0), ("looping", 3, 2), ("garbled", 50, 50)]
)
def test_held_out_generations_are_classified(kind: str, count: int, flagged: int) -> None:
    found = _flagged(HELD_OUT[kind])
    assert (len(found), sum(found)) == (count, flagged)


@pytest.mark.parametrize("length", [8, 12, 16, 24, 32])
def test_the_beginning_of_a_stutter_is_enough(length: int) -> None:
    for recorded in (RECORDED, HELD_OUT):
        for one in recorded["garbled"]:
            if one["defect"] == "dq8ca-zp-binding-float":
                begun = judge(one["tokens"][:length], one["entropies"][:length], "length")
                assert begun.problems


def test_no_beginning_of_a_healthy_text_is_suspect() -> None:
    for recorded in (RECORDED, HELD_OUT):
        for one in recorded["healthy"]:
            for length in range(1, len(one["tokens"])):
                begun = judge(one["tokens"][:length], one["entropies"][:length], "length")
                assert not begun.problems, length


@pytest.mark.parametrize(("length", "caught"), [(8, 81), (24, 99)])
def test_how_many_garbled_texts_are_caught_by_their_beginning(length: int, caught: int) -> None:
    garbled = RECORDED["garbled"] + HELD_OUT["garbled"]
    begun = (judge(g["tokens"][:length], g["entropies"][:length], "length") for g in garbled)
    assert sum(bool(health.problems) for health in begun) == caught


def _words(count: int) -> list[int]:
    return [(i * 37) % 1009 for i in range(count)]


def test_each_problem_is_named() -> None:
    calm = [1.0] * 64
    assert judge(_words(64), calm, "length").problems == []
    assert "times in a row" in judge([5] * 12 + _words(20), calm[:32], "length").problems[0]
    loop = judge(_words(8) * 8, calm, "length").problems
    assert loop == ["the text loops and does not end: 12% of its tokens are distinct"]
    nan = float("nan")
    assert "2 of 8 steps" in judge(_words(8), [nan, nan, *calm[:6]], "length").problems[0]
    assert "as likely" in judge(_words(64), [9.0] * 64, "length").problems[0]
    assert "certain" in judge(_words(64), [0.0] * 64, "end of sequence").problems[0]
    noise = [7, 8, 7, 9, 7, 7, 12, 7, 13, 14, 15, 16] * 2
    assert "noise" in judge(noise, [3.0] * 24, "length").problems[0]
    assert judge(noise[:12], [3.0] * 12, "length").problems == []


def test_a_short_answer_is_never_suspect() -> None:
    assert judge([4, 4, 4], [0.0] * 4, "end of sequence").problems == []
    assert judge([], [0.1], "end of sequence").problems == []


def test_a_watched_runner_notes_entropies() -> None:
    class Fixed:
        logits = torch.zeros(1, 8)

        def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
            return self.logits

        def reset(self) -> None:
            pass

    runner = WatchedRunner(Fixed())
    at = torch.tensor([0])
    runner.forward(at[None], at)
    Fixed.logits = torch.full((1, 8), float("inf"))
    runner.forward(at[None], at)
    assert runner.entropies[0] == pytest.approx(2.0794, abs=1e-3)
    assert runner.entropies[1] != runner.entropies[1]
    runner.reset()
    assert runner.entropies == []
    assert entropy(torch.tensor([100.0, 0.0])) == pytest.approx(0, abs=1e-6)


def test_logits_are_judged_by_their_most_likely_tokens() -> None:
    same = [torch.eye(8)[3]] * 9
    assert "times in a row" in judge_logits(same).problems[0]
    assert judge_logits([torch.eye(16)[i] for i in range(9)]).problems == []


class _Short:
    """A program that takes calls of up to 3 tokens."""

    def __init__(self):
        self.metadata, self.lengths = {"get_max_seq_len": 3}, []

    def forward(self, tokens, input_pos, /):
        self.lengths.append(tokens.shape[1])
        return torch.tensor([[0.0, 1.0]])

    def reset(self): ...


def test_a_prompt_in_parts_is_one_step():
    runner = _Short()
    watched = WatchedRunner(runner)
    found = generate(watched, [1] * 8, context=20, max_new_tokens=4)
    assert max(runner.lengths) <= 3 and sum(runner.lengths) == 8 + 3
    assert len(watched.entropies) == len(found.tokens) == 4
