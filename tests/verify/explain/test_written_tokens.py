"""What of a phone's output is looked at, and the lines that speak for a cause."""

import math

import pytest
from tests.support.models.tiny_programs import write_word_tokenizer

from quatrain.tokenizer import Tokenizer, find_tokenizer
from quatrain.verify.explain.evidence import as_likely, next_likeliest
from quatrain.verify.explain.phone_output import PhoneOutput
from quatrain.verify.explain.written_tokens import WrittenTokens

END, PROMPT = 9, [3, 4]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    write_word_tokenizer(folder := tmp_path_factory.mktemp("words"), 40)
    (folder / "model.pte").touch()
    return Tokenizer.load(find_tokenizer(folder / "model.pte"))


@pytest.mark.parametrize(
    ("written", "first", "goes_on", "cut"),
    [
        ([5, 6, 7], [5, 6, 7], False, False),
        ([5, 6, 7, 8], [5, 6, 7, 8], False, False),  # as many as are looked at
        ([5, 6, 7, 8, 10], [5, 6, 7, 8], False, True),
        ([5, 6, END], [5, 6, END], False, False),
        ([5, 6, END, 7], [5, 6, END], True, False),
        ([5, 6, 7, 8, 10, END, 7], [5, 6, 7, 8], True, True),
        ([*PROMPT, 5, 6], [5, 6], False, False),
    ],
)
@pytest.mark.parametrize("as_text", [False, True])
def test_up_to_the_end_and_no_more_than_asked(
    written: list[int], first: list[int], goes_on: bool, cut: bool, as_text: bool, words: Tokenizer
) -> None:
    output = PhoneOutput(text=words.decode(written)) if as_text else PhoneOutput(tokens=written)
    found = WrittenTokens(output, words, PROMPT, [END], limit=4)
    assert (found.first, found.goes_on, found.cut) == (first, goes_on, cut)


def test_how_much_likelier_is_said_in_tens() -> None:
    ranked = [("a", -2.0), ("b", -2.0 - 6 * math.log(10)), ("c", -90.0)]
    assert next_likeliest(ranked) == ["the next likeliest, b, is 10^6 times less likely"]
    assert next_likeliest(ranked[:1]) == as_likely([]) == []
