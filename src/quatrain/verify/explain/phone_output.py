"""The output of a phone, as users paste it: a text, token ids, or both."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quatrain.errors import InputError
from quatrain.text_files import read_text


@dataclass(frozen=True)
class PhoneOutput:
    """The output of a phone: a text, token ids, or both.

    Attributes:
        text: The text shown; None if it is not known.
        tokens: The generated token ids; None if they are not known.
    """

    text: str | None = None
    tokens: list[int] | None = None


def read_phone_output(path: Path | str) -> PhoneOutput:
    """Read the output of a phone from the text file `path`.

    A JSON list of integers, or two or more integers separated by white space, are token ids; a JSON
    object may have "text" and "tokens"; everything else is text.

    Args:
        path: The file.

    Raises:
        InputError: The file cannot be read or is empty, or its JSON object has neither key.
    """
    content = read_text(path, may_be_cut=True)  # as at the last token that was asked for
    if content.strip() in ("", "[]"):
        raise InputError(
            f"{path}: is empty; put the phone's output into it, or if the answer ended at once, "
            "the id of the token that ended it, such as [2]"
        )
    said = _json(content)
    if isinstance(said, dict):
        return _from_object(said, Path(path))
    if _is_ids(said):
        return PhoneOutput(tokens=said)
    words = content.split()
    if len(words) > 1 and all(word.isdecimal() for word in words):
        return PhoneOutput(tokens=[int(word) for word in words])
    return PhoneOutput(text=content)


def _json(content: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(item) is int for item in value)


def _from_object(said: dict[str, Any], path: Path) -> PhoneOutput:
    text, tokens = said.get("text"), said.get("tokens")
    wrong_text = text is not None and not (isinstance(text, str) and text.strip())
    if wrong_text or (tokens is not None and not _is_ids(tokens)) or (text, tokens) == (None, None):
        raise InputError(
            f'{path}: is a JSON object with {", ".join(said) or "nothing"}; expected "text", a '
            'string that is not empty, "tokens", a list of integers, or both'
        )
    return PhoneOutput(text, tokens)
