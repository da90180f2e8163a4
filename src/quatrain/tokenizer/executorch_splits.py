"""Rewrites the splits of a tokenizer.json so that ExecuTorch's C++ tokenizer reads them correctly.

Checked with pytorch_tokenizers 1.5, which misreads these, most of them silently:

| `Split` | ExecuTorch's tokenizer | so Quatrain writes |
|---|---|---|
| isolated | drops text that the pattern does not match | a pattern that matches all text |
| by what has no characters, as `(?=A)` | drops all text | a pattern of what is between |
| removed | keeps what the pattern matches | a pattern of what is between the matches |
| merged with previous, by a pattern | drops what the pattern does not match | isolated |
| merged with next, contiguous | does not load it | isolated |
| inverted, by a string | does not load it | by a pattern |
"""

import json
import re
from typing import Any

import tokenizers
from tokenizers import Regex, pre_tokenizers

# Characters of every Unicode category, and the contexts in which a pattern may treat them
# differently.
_CHARACTERS = (
    "aAé1٣²½Ⅷ_-(»«)!+$^~|`'\" \t\n\r\u00a0\u3000\u200d\u0301\u0903\u00ad\u0378\ue000\U0001f642"
    "\u01c5\u02b0\u6f22\u0e01\u30a2\uac00\u309b\u30fb\u2014\u2026"
)
_PLACES = ("{0}", "{0}a", "a{0}", " {0}", "{0} ", "{0}1", "1{0}", "{0}{0}a", "{0}{0}1", "\n{0}")
# Each kind of character beside each other, and numbers of several lengths.
_TEXT = "".join(place.format(one) for place in _PLACES for one in _CHARACTERS) + " 1234567x12,345.6"


def make_splits_cover_text(model: tokenizers.Tokenizer) -> bool:
    """Make each split of `model` one that ExecuTorch reads, its pattern matching all of a text,
    without changing any word; returns whether one changed."""
    cutter = model.pre_tokenizer
    if isinstance(cutter, pre_tokenizers.Split):
        whole = _whole_split(cutter)
        if whole is not None:
            model.pre_tokenizer = whole
        return whole is not None
    if not isinstance(cutter, pre_tokenizers.Sequence):
        return False
    changed = False
    for index, step in enumerate(states_in(cutter)):
        whole = _whole_split(cutter[index]) if step["type"] == "Split" else None
        if whole is not None:
            cutter[index] = whole
            changed = True
    return changed


def states_in(sequence: pre_tokenizers.Sequence) -> list[dict[str, Any]]:
    """The steps of `sequence` as tokenizer.json stores them."""
    return json.loads(sequence.__getstate__())["pretokenizers"]


def _whole_split(split: Any) -> pre_tokenizers.Split | None:
    """`split` in a form that ExecuTorch reads; None if it is in one."""
    state = json.loads(split.__getstate__())
    behavior, inverted, text = state["behavior"], state["invert"], state["pattern"].get("String")
    read = behavior in ("Isolated", "Removed", "MergedWithPrevious") and not inverted
    if text is not None and read:
        return None
    pattern = state["pattern"]["Regex"] if text is None else re.escape(text)
    between = rf"(?:(?!{pattern})[\s\S])+"
    if _has_no_characters(pattern):
        return _isolated(rf"[\s\S](?:(?!{pattern})[\s\S])*")
    if behavior == "Removed":
        if not inverted:
            return pre_tokenizers.Split(Regex(between), "removed", invert=True)
        return None if text is None else pre_tokenizers.Split(Regex(pattern), "removed", True)
    if behavior == "Isolated":
        return None if text is None and _matches_all(pattern) else _isolated(f"{pattern}|{between}")
    if behavior == "Contiguous":
        return _isolated(f"(?:{pattern})+|{between}")
    # A match with the text before it, or behind it, up to the next match.
    if (behavior == "MergedWithPrevious") is not inverted:
        return _isolated(f"(?:{between})?(?:{pattern})|{between}")
    return _isolated(f"(?:{pattern})(?:{between})?|{between}")


def _isolated(pattern: str) -> pre_tokenizers.Split:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def _has_no_characters(pattern: str) -> bool:
    """Whether `pattern` matches in the sample text, and matches no character of it."""
    words = [w for w, _ in pre_tokenizers.Split(Regex(pattern), "removed").pre_tokenize_str(_TEXT)]
    return len(words) > 1 and "".join(words) == _TEXT


def _matches_all(pattern: str) -> bool:
    """Whether `pattern` matches every part of every sample text."""
    remover = pre_tokenizers.Split(Regex(pattern), "removed")
    return not any(
        remover.pre_tokenize_str(place.format(character))
        for character in _CHARACTERS
        for place in _PLACES
    )
