"""expected.json: what a right phone answers, and that it is read as it was written."""

import json
from pathlib import Path

import pytest
import torch
from tests.support.models.tiny_programs import Tiny

from quatrain.errors import InputError
from quatrain.verify.eager import load_eager
from quatrain.verify.expected import (
    ExpectedProgram,
    RecordingRunner,
    expected_answers,
    read_expected,
    write_expected,
)

PROMPT = "w5 w17 w40 w9"


class _Broken:
    """A model whose logits are not all numbers."""

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor, /) -> torch.Tensor:
        return torch.tensor([[float("nan"), 1.5, float("-inf"), 2.5, float("inf")]])

    def reset(self) -> None: ...


@pytest.fixture(scope="module")
def answers(tiny: Tiny) -> list:
    return expected_answers(tiny.programs["weight-only"], [PROMPT, "w22 w61"], max_new_tokens=5)


@torch.inference_mode()
def _greedy(checkpoint: Path, ids: list[int], count: int) -> list[tuple[torch.Tensor, int]]:
    """(the logits [V], the most likely token) of each step of the eager checkpoint."""
    backbone = load_eager(checkpoint, "weight-only")
    read, steps = torch.tensor([ids]), []
    for _ in range(count):
        backbone.reset()
        row = backbone.logits(backbone.hidden(read, 0))[0, -1]
        steps.append((row, int(row.argmax())))
        read = torch.cat([read, row.argmax()[None, None]], 1)
    return steps


def test_logits_that_are_not_finite_are_left_out() -> None:
    """JSON has no word for them."""
    noted = RecordingRunner(_Broken())
    noted.forward(torch.tensor([[5]]), torch.tensor([0]))
    assert noted.top == [[(3, 2.5), (1, 1.5)]]


def test_tokens_and_logits_are_those_of_the_checkpoint(tiny: Tiny, answers: list) -> None:
    answer = answers[0]
    assert answer.prompt_tokens == [5, 17, 40, 9] and not answer.chat
    assert answer.input == answer.prompt == PROMPT
    steps = _greedy(tiny.checkpoint, answer.prompt_tokens, 5)
    assert answer.tokens == [token for _, token in steps]
    assert answer.text == " ".join(f"w{token}" for token in answer.tokens)
    for token, top, (row, _) in zip(answer.tokens, answer.top_logits, steps, strict=True):
        assert top[0][0] == token and len(top) == 5
        found = torch.tensor([value for _, value in top])
        torch.testing.assert_close(found, row.topk(5).values, rtol=1e-3, atol=1e-3)


def test_each_token_is_reported_with_the_completed_fraction(tiny: Tiny) -> None:
    heard: list[float] = []
    expected_answers(
        tiny.programs["weight-only"], ["w5", "w22 w61"], max_new_tokens=2, advance=heard.append
    )
    assert heard == [0.25, 0.5, 0.5, 0.75, 1.0, 1.0]


def test_a_chat_is_asked_through_its_template(tiny: Tiny) -> None:
    (answer,) = expected_answers(tiny.programs["8da4w"], ["w5"], True, max_new_tokens=1)
    assert answer.chat and answer.prompt_tokens == [1, 5] and answer.input == "w1 w5"


def test_without_dot_products_8da4w_answers_as_weight_only(tiny: Tiny, answers: list) -> None:
    program = tiny.programs["8da4w"]
    (found,) = expected_answers(program, [PROMPT], as_on="mali-g76", max_new_tokens=5)
    usual = expected_answers(program, [PROMPT], max_new_tokens=5)[0]
    assert found.as_on == "mali-g76" and usual.as_on is None
    assert found.top_logits == answers[0].top_logits != usual.top_logits


def test_xnnpack_is_asked_too(tiny_xnnpack: Path) -> None:
    tokenizer = tiny_xnnpack.with_name("model.tokenizer.json")
    (found,) = expected_answers(tiny_xnnpack, [PROMPT], max_new_tokens=2, tokenizer=tokenizer)
    assert [top[0][0] for top in found.top_logits] == found.tokens


def test_it_is_read_as_it_was_written(answers: list, tmp_path: Path) -> None:
    written = {"model.pte": ExpectedProgram("ab" * 32, answers)}
    file = tmp_path / "expected.json"
    write_expected(file, written)
    assert read_expected(file) == written
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"format": "other"}))
    with pytest.raises(InputError, match="its format is 'other', expected 'quatrain-expected-1'"):
        read_expected(file)
    del content["programs"]["model.pte"]["prompts"][0]["tokens"]
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"is damaged \(KeyError: 'tokens'\)"):
        read_expected(file)
