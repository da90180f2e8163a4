"""Answers in which bytes that are no character were shown as U+FFFD, or lost."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers

from quatrain.stages import Stages
from quatrain.tokenizer import Tokenizer
from quatrain.tokenizer.chat_prompt import ChatOptions
from quatrain.verify.explain.explain import explain_all
from quatrain.verify.explain.explanation import Explanation
from quatrain.verify.explain.hypotheses import Hypothesis
from quatrain.verify.explain.inquiry import Inquiry
from quatrain.verify.explain.likelihood import Rounding
from quatrain.verify.explain.phone_output import PhoneOutput
from quatrain.verify.explain.question import Question

PROMPT = (5, 6)
WRITTEN = "fish \N{FISH} and \N{GRAPES}, \N{BREAD} too"


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A byte a token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = tokenizers.Tokenizer(models.BPE({char: i for i, char in enumerate(alphabet)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.save(str(path := tmp_path_factory.mktemp("bytes") / "tokenizer.json"))
    return Tokenizer.load(path)


def explained(words: Tokenizer, text: str) -> Explanation:
    """`text`, held against a program whose likeliest tokens are those of WRITTEN."""
    ids = words.encode(WRITTEN)

    def row(place: int) -> torch.Tensor:
        logits = torch.arange(256.0) / 1e3
        logits[ids[place % len(ids)]] = 20
        return logits

    def read_answer(tokens: list[int], at: int) -> torch.Tensor:
        first = at - len(PROMPT) + 1
        return torch.stack([row(first + place) for place in range(len(tokens))])

    model: Any = SimpleNamespace(
        path=Path("m.pte"), metadata={}, context=256, own=None,
        read_prompt=lambda *_: row(0), read_answer=read_answer,
    )  # fmt: skip
    right = Hypothesis("right", "right", "the right computation", "", PROMPT, None)
    question = Question("x", False, ChatOptions())
    inquiry = Inquiry(words, model, question, [], [right], Rounding(0.01))
    return explain_all([PhoneOutput(text=text)], inquiry, Stages())[0]


def one_by_one(words: Tokenizer) -> str:
    return "".join(words.decode([one]) for one in words.encode(WRITTEN))


def test_tokens_decoded_one_by_one_are_named(words: Tokenizer) -> None:
    assert one_by_one(words).count("\ufffd") == 12
    found = explained(words, one_by_one(words))
    assert (found.cause, found.tokens) == ("tokenizer", len(words.encode(WRITTEN)))
    assert "decoded one by one" in found.statement and "together" in str(found.remedy)


def test_characters_that_were_lost_on_the_way_are_named(words: Tokenizer) -> None:
    found = explained(words, "".join(one if one.isascii() else "\ufffd" for one in WRITTEN))
    assert (found.cause, found.tokens) == ("tokenizer", len(words.encode(WRITTEN)))
    assert "replaces characters" in found.statement


def test_an_end_within_a_character_is_right(words: Tokenizer) -> None:
    cut = words.decode(words.encode(WRITTEN)[:7])
    assert cut.endswith("\ufffd")
    assert explained(words, cut).cause == "right"


def test_lost_bytes_that_are_not_the_programs_are_said_to_be_a_guess(words: Tokenizer) -> None:
    found = explained(words, WRITTEN.replace("sh", "\ufffd\ufffd"))
    assert found.cause != "tokenizer" and "guessed" in found.notes[-1]
    assert "guessed" not in str(explained(words, WRITTEN).notes)
