"""What of a tokenizer.json ExecuTorch's C++ tokenizer does not read, and what it cannot do.

Tried with pytorch_tokenizers 1.5: a file that has anything else does not load there.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tokenizers

from quatrain.json_files import read_object
from quatrain.tokenizer.byte_ranks import byte_letters
from quatrain.tokenizer.files import SENTENCEPIECE, TOKENIZER, read_config_of, tokenizer_class

_READ = {
    "model": {"BPE"},
    "normalizer": {"NFC", "Prepend", "Replace", "Sequence"},
    "pre_tokenizer": {"ByteLevel", "Digits", "Split", "Sequence"},
    "decoder": {"ByteFallback", "ByteLevel", "Fuse", "Replace", "Strip", "Sequence"},
}
# Of UTF-8, without those of control characters, private use and planes of Unicode that are empty:
# SmolLM2's vocabulary lacks some of these.
BYTES_OF_TEXTS = frozenset(
    (*b"\t\n\r", *range(0x20, 0x7F), *range(0x80, 0xC0), *range(0xC2, 0xEE), 0xEF, 0xF0, 0xF3)
)
_UNREAD_SPLITS = ("Contiguous", "MergedWithNext")  # nor what a text parts, inverted


def unread_on_a_phone(tokenizer: Path) -> str | None:
    """The first part of the tokenizer.json `tokenizer` that is not read there, such as
    "pre_tokenizer Metaspace"; None where all is. Raises `InputError` where it is damaged."""
    content = read_object(tokenizer)
    for part, read in _READ.items():
        for kind in _kinds(content.get(part)):
            if kind not in read:
                return f"{part} {kind}"
    return None


def taking_white_space(tokenizer: Path) -> list[str]:
    """The tokens of the tokenizer.json `tokenizer` that take the white space beside them with them,
    or stand for themselves between words alone: there each is found as it is written, and the white
    space stays."""
    flags = ("lstrip", "rstrip", "single_word")
    added = read_object(tokenizer).get("added_tokens") or ()
    return [str(one.get("content")) for one in added if any(one.get(flag) for flag in flags)]


def found_once_prepared(tokenizer: Path) -> list[str]:
    """The tokens of the tokenizer.json `tokenizer` that are looked for in a text as its steps make
    it, which make another of the token too: there each is found as it is written."""
    added = read_object(tokenizer).get("added_tokens") or ()
    named = [str(one.get("content")) for one in added if one.get("normalized")]
    steps = tokenizers.Tokenizer.from_buffer(tokenizer.read_bytes()).normalizer if named else None
    return [] if steps is None else [one for one in named if steps.normalize_str(one) != one]


def dropped_with_unknown(tokenizer: Path) -> str | None:
    """What is lost there of a text with a character that the BPE of the tokenizer.json `tokenizer`
    has a token neither of nor of its bytes, such as "its word"; None where it has them of all that
    texts are written with.

    A vocabulary that was trained without byte fallback has them of the characters it met alone.
    """
    content = read_object(tokenizer)
    model, steps = content["model"], list(_kinds(content.get("pre_tokenizer")))
    byte_level = "ByteLevel" in steps
    if byte_level or model.get("byte_fallback"):
        names = byte_letters() if byte_level else [f"<0x{byte:02X}>" for byte in range(256)]
        if model["vocab"].keys() >= {names[byte] for byte in BYTES_OF_TEXTS}:
            return None
    return "its word" if steps else "all of the text"


def spaced_behind_special_tokens(tokenizer: Path) -> bool:
    """Whether text behind a special token gets the space of a text's beginning here and on a phone,
    and none in transformers 5: there `LlamaTokenizer` without `legacy`, and what is made of a
    tokenizer.model that denies it, put one before the first part of a text alone, which no file
    that a phone reads can say. Raises `InputError` where a file is damaged."""
    config, _ = read_config_of(tokenizer)
    name = tokenizer_class(tokenizer, config)
    from_pieces = tokenizer.name == SENTENCEPIECE
    first_alone = (
        name == "CodeLlamaTokenizer"
        or (name == "LlamaTokenizer" and not config.get("legacy"))
        or (from_pieces and name != "GemmaTokenizer" and config.get("legacy") is False)
    )
    if not first_alone or config.get("add_prefix_space") is False:
        return False
    if from_pieces:
        return True
    content = read_object(tokenizer) if tokenizer.name.endswith(TOKENIZER) else {}
    kinds = {kind for part in _READ for kind in _kinds(content.get(part))}
    return "BPE" in kinds and not kinds & {"ByteLevel", "Metaspace"}


def _kinds(part: Any) -> Iterator[str]:
    if not isinstance(part, dict):
        return
    unread_split = part.get("behavior") in _UNREAD_SPLITS or (
        part.get("invert") and "String" in part.get("pattern", {})
    )
    yield f"Split {part.get('behavior')}" if unread_split else str(part.get("type", "BPE"))
    for inner in ("normalizers", "pretokenizers", "decoders"):
        for one in part.get(inner) or ():
            yield from _kinds(one)
