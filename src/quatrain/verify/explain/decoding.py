"""Checks whether a text matches its tokens: mistakes in decoding ids to text on a phone."""

from dataclasses import dataclass, replace

from quatrain.tokenizer import Tokenizer
from quatrain.verify.explain.phone_output import PhoneOutput

# How vocabularies write white space: byte-level BPE's, and SentencePiece's.
_MARKS = {"\u0120": " ", "\u010a": "\n", "\u2581": " ", "<0x0A>": "\n"}
_FEWEST = 3  # marks, that none is the text's own
LOST = "\ufffd"  # replaces bytes that are not a character


@dataclass(frozen=True)
class DecodingMistake:
    """What is wrong with how ids became text, and what mends it where that is not to give the phone
    the program's own tokenizer."""

    what: str
    fix: str | None = None


ONE_BY_ONE = DecodingMistake(
    f"its tokens were decoded one by one, and a character of several tokens shows as {LOST}",
    "decode the tokens together, or keep a token's bytes back until the character is whole",
)
CHARACTERS_LOST = DecodingMistake(
    f"{LOST} replaces characters of its tokens",
    "keep the text in UTF-8 on its way from the phone, or give its token ids",
)


def restored(output: PhoneOutput) -> tuple[PhoneOutput, DecodingMistake | None]:
    """(`output` as text where it shows the vocabulary's own pieces; what was wrong with it)."""
    text = output.text
    if text is None or sum(text.count(mark) for mark in _MARKS) < _FEWEST:
        return output, None
    for mark, meant in _MARKS.items():
        text = text.replace(mark, meant)
    what = "it shows the vocabulary's pieces, not what they decode to"
    return replace(output, text=text), DecodingMistake(what)


def decoded_otherwise(output: PhoneOutput, tokenizer: Tokenizer) -> DecodingMistake | None:
    """What is wrong where both the ids and the text are known and do not belong together."""
    if output.text is None or output.tokens is None:
        return None
    shown = {_with_single_spaces(tokenizer.decode(output.tokens, hide)) for hide in (True, False)}
    text = _with_single_spaces(output.text)
    if any(one.startswith(text) or text.startswith(one) for one in shown if one and text):
        return None
    said = tokenizer.decode(output.tokens)[:60]
    return DecodingMistake(f"its token ids say {said!r} in the model's own tokenizer")


def _with_single_spaces(text: str) -> str:
    return " ".join(text.split())
