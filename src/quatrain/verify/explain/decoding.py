"""Whether a text is what its tokens say: mistakes of what turns ids into text on a phone."""

from dataclasses import replace

from quatrain.tokenizer import Tokenizer
from quatrain.verify.explain.phone_output import PhoneOutput

# How vocabularies write white space: byte-level BPE's, and SentencePiece's.
_MARKS = {"\u0120": " ", "\u010a": "\n", "\u2581": " ", "<0x0A>": "\n"}
_FEWEST = 3  # marks, that none is the text's own


def restored(output: PhoneOutput) -> tuple[PhoneOutput, str | None]:
    """(`output` as text where it shows the vocabulary's own pieces; what was wrong with it)."""
    text = output.text
    if text is None or sum(text.count(mark) for mark in _MARKS) < _FEWEST:
        return output, None
    for mark, meant in _MARKS.items():
        text = text.replace(mark, meant)
    return replace(output, text=text), "it shows the vocabulary's pieces, not what they decode to"


def decoded_otherwise(output: PhoneOutput, words: Tokenizer) -> str | None:
    """What is wrong where both the ids and the text are known and do not belong together."""
    if output.text is None or output.tokens is None:
        return None
    shown = {_bare(words.decode(output.tokens, hide)) for hide in (True, False)}
    text = _bare(output.text)
    if any(one.startswith(text) or text.startswith(one) for one in shown if one and text):
        return None
    said = words.decode(output.tokens)[:60]
    return f"its token ids say {said!r} in the model's own tokenizer"


def _bare(text: str) -> str:
    return " ".join(text.split())
