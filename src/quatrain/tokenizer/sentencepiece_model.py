"""Reads SentencePiece's own model file, `tokenizer.model`: pieces, scores, normalization.

The file is a protocol buffer, whose schema is SentencePiece's `sentencepiece_model.proto`. Only
what makes up a BPE tokenizer is read, with the few fields' numbers below.
"""

import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from quatrain.errors import InputError, UnknownTokenizer

_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3  # of the whole
_TEXT, _SCORE, _TYPE = 1, 2, 3  # of a piece
_MODEL_TYPE, _BYTE_FALLBACK, _UNKNOWN, _BEGIN, _END = 3, 35, 40, 41, 42  # of what trained it
_CHARACTERS, _PREFIX, _EXTRA_SPACES = 2, 3, 4  # of what prepares a text
_BPE = 2
_VARINT, _EIGHT_BYTES, _MESSAGE, _FOUR_BYTES = 0, 1, 2, 5  # how a value is written


def sentencepiece_metadata(path: Path) -> dict[str, Any]:
    """The model in `path` as the metadata of a GGUF file would have it, `tokenizer.ggml.{key}`.

    Raises `UnknownTokenizer` if it is another kind than BPE, and `InputError` if the file is
    damaged.
    """
    try:
        data = path.read_bytes()
        parts = list(_fields(data))
        pieces = [dict(_fields(value)) for number, value in parts if number == _PIECES]
        trainer = dict(_fields(_last_field(parts, _TRAINER)))
        normalizer = dict(_fields(_last_field(parts, _NORMALIZER)))
        tokens = [piece[_TEXT].decode("utf-8") for piece in pieces]
        scores = [struct.unpack("<f", piece.get(_SCORE, bytes(4)))[0] for piece in pieces]
        types = [int(piece.get(_TYPE, 1)) for piece in pieces]
        stated_ids = _stated_ids(trainer)
    except (OSError, ValueError, KeyError, AttributeError, TypeError, struct.error) as error:
        raise InputError(
            f"{path}: is not a SentencePiece model, or is damaged: {error!r}; download it again, "
            "or give a tokenizer.json as --tokenizer"
        ) from error
    if trainer.get(_MODEL_TYPE, 1) != _BPE:
        kind = trainer.get(_MODEL_TYPE, 1)
        raise UnknownTokenizer(
            f"{path}: is a SentencePiece model of another type than BPE (its type is {kind}; 1 is "
            "unigram), which ExecuTorch's tokenizer cannot read; give a tokenizer.json as "
            "--tokenizer"
        )
    values = {
        "tokens": tokens,
        "scores": np.array(scores, np.float32),
        "token_type": np.array(types, np.int64),
        "byte_fallback": bool(trainer.get(_BYTE_FALLBACK, 0)),
        "add_space_prefix": bool(normalizer.get(_PREFIX, 1)),
        "remove_extra_whitespaces": bool(normalizer.get(_EXTRA_SPACES, 1)),
        "precompiled_charsmap": normalizer.get(_CHARACTERS, b""),
        **stated_ids,
    }
    return {f"tokenizer.ggml.{key}": value for key, value in values.items()}


def _stated_ids(trainer: Mapping[int, Any]) -> dict[str, int]:
    """The tokens that have a meaning of their own."""
    ids = {
        "unknown_token_id": _signed(trainer.get(_UNKNOWN, 0)),
        "bos_token_id": _signed(trainer.get(_BEGIN, 1)),
        "eos_token_id": _signed(trainer.get(_END, 2)),
    }
    return {key: index for key, index in ids.items() if index >= 0}


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """The fields of a message, (number, value): an int, or bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _MESSAGE:
            length, at = _varint(message, at)
        else:
            length = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4}[kind]
        if at + length > len(message):
            raise ValueError(f"a field of {length} bytes does not end within the file")
        yield number, message[at : at + length]
        at += length


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """(the number of seven bits a byte that begins at `at`, where it ends)."""
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("a number does not end")
        value |= (message[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if message[at - 1] < 128:
            return value, at


def _last_field(parts: list[tuple[int, Any]], number: int) -> bytes:
    return next((value for found, value in reversed(parts) if found == number), b"")


def _signed(value: int) -> int:
    """-1 is written as a number of 64 bits."""
    return value - (1 << 64) if value >= 1 << 63 else value
