"""The checked vocabulary of a GGUF file's tokenizer, of any kind."""

from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken

from quatrain.errors import InputError

# Values of tokenizer.ggml.token_type.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED = 1, 2, 3, 4

_IDS = ("bos_token_id", "eos_token_id", "eot_token_id", "eom_token_id", "unknown_token_id")


class GgufVocabulary:
    """Looks up `tokenizer.ggml.{key}` in the `metadata` of the GGUF file `source`.

    `tokens`: their texts, by id. Raises `InputError` if there are none, or an id is not one.
    """

    def __init__(self, metadata: dict[str, Any], source: Path) -> None:
        self.metadata = metadata
        self.source = source
        self.tokens = self.strings("tokens")
        for key in _IDS:
            token = self.get(key)
            numbered = isinstance(token, int) and not isinstance(token, bool)
            if token is not None and not (numbered and 0 <= token < len(self.tokens)):
                raise InputError(
                    f"{source}: tokenizer.ggml.{key} is {token!r}, "
                    f"expected below {len(self.tokens)}; the file is damaged"
                )

    def get(self, key: str) -> Any:
        """The value of `key`, or None."""
        return self.metadata.get(f"tokenizer.ggml.{key}")

    def flag(self, key: str, default: bool) -> bool:
        """The truth value `key`, or `default` if the file does not say. Raises `InputError` for
        another value."""
        value = self.get(key)
        if not isinstance(value, bool | None):
            raise InputError(
                f"{self.source}: tokenizer.ggml.{key} is {value!r}, expected true or false; the "
                "file is damaged"
            )
        return default if value is None else value

    def strings(self, key: str) -> list[str]:
        """The list of texts `key`. Raises `InputError` if it is not one."""
        value = self.get(key)
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise InputError(
                f"{self.source}: tokenizer.ggml.{key} is not a list of strings; the file is damaged"
            )
        return value

    def numbers(self, key: str) -> np.ndarray:
        """The array `key`, a finite number per token. Raises `InputError` if it is not that."""
        value = self.get(key)
        if not isinstance(value, np.ndarray):
            raise InputError(
                f"{self.source}: tokenizer.ggml.{key} is not a list of numbers; the file is damaged"
            )
        if len(value) != len(self.tokens) or not np.isfinite(value).all():
            raise InputError(
                f"{self.source}: tokenizer.ggml.{key} holds {int(np.isfinite(value).sum())} finite "
                f"numbers, expected one for each of the {len(self.tokens)} tokens; "
                "the file is damaged"
            )
        return value

    def ids(self, tokens: list[str]) -> dict[str, int]:
        """The ids of `tokens` by their texts. Raises `InputError` if two have the same."""
        ids = {token: index for index, token in enumerate(tokens)}
        if len(ids) != len(tokens):
            twice = next(token for index, token in enumerate(tokens) if ids[token] != index)
            raise InputError(
                f"{self.source}: tokenizer.ggml.tokens has {twice!r} twice; the file is damaged"
            )
        return ids

    def merges(self, ids: dict[str, int]) -> list[tuple[str, str]]:
        """The pairs of tokens to join, in order. Raises `InputError` if one is not of two in `ids`
        that make a third."""
        found = []
        for merge in self.strings("merges"):
            left, _, right = merge.partition(" ")
            if not (left in ids and right in ids and left + right in ids):
                raise InputError(
                    f"{self.source}: the merge {merge!r} does not join two tokens into a third; "
                    "the file is damaged"
                )
            found.append((left, right))
        return found


def mark_special(
    tokenizer: tokenizers.Tokenizer,
    tokens: list[str],
    types: np.ndarray,
    keep_spaces_after: set[str] | None = None,
) -> None:
    """Have `tokenizer` find whole in a text the tokens that are control, unknown or user-defined.

    White space that follows one belongs to it and is gone, but after those of
    `keep_spaces_after`; None: after all.
    """
    added: dict[bool, list[AddedToken]] = {True: [], False: []}
    for text, kind in zip(tokens, types, strict=False):
        if kind in (UNKNOWN, CONTROL, USER_DEFINED):
            special = bool(kind != USER_DEFINED)
            strips = keep_spaces_after is not None and text not in keep_spaces_after
            token = AddedToken(text, rstrip=strips, normalized=False, special=special)
            added[special].append(token)
    # In one call each: every call rebuilds the matcher.
    tokenizer.add_special_tokens(added[True])
    tokenizer.add_tokens(added[False])
