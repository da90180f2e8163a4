"""What ExecuTorch's C++ tokenizer does not support in a tokenizer.json, or does differently.

Checked with pytorch_tokenizers 1.5: it refuses a file with any type that `_READ` does not list.
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
    "post_processor": {"ByteLevel", "Sequence", "TemplateProcessing"},
    "decoder": {"ByteFallback", "ByteLevel", "Fuse", "Replace", "Strip", "Sequence"},
}
# The bytes of UTF-8 text without control characters, private use and empty Unicode planes, some of
# which SmolLM2's vocabulary lacks.
BYTES_OF_TEXTS = frozenset(
    (*b"\t\n\r", *range(0x20, 0x7F), *range(0x80, 0xC0), *range(0xC2, 0xEE), 0xEF, 0xF0, 0xF3)
)
_UNREAD_SPLITS = ("Contiguous", "MergedWithNext")  # nor an inverted split by a string


def unsupported_part(tokenizer: Path) -> str | None:
    """The first unsupported part of the tokenizer.json `tokenizer`, such as "pre_tokenizer
    Metaspace", or None. Raises `InputError` if the file is damaged."""
    content = read_object(tokenizer)
    for part, read in _READ.items():
        for kind in _kinds(content.get(part)):
            if kind not in read:
                return f"{part} {kind}"
    # It loads these, and looks for each piece without them.
    affixes = ("continuing_subword_prefix", "end_of_word_suffix")
    return next((f"model BPE with {one}" for one in affixes if content["model"].get(one)), None)


def tokens_that_strip_spaces(tokenizer: Path) -> list[str]:
    """The added tokens of the tokenizer.json `tokenizer` with `lstrip`, `rstrip` or `single_word`.
    ExecuTorch ignores these flags: it finds the token anywhere and keeps the white space."""
    flags = ("lstrip", "rstrip", "single_word")
    added = read_object(tokenizer).get("added_tokens") or ()
    return [str(one.get("content")) for one in added if any(one.get(flag) for flag in flags)]


def normalized_tokens(tokenizer: Path) -> list[str]:
    """The added tokens of the tokenizer.json `tokenizer` that are searched in normalized text and
    that normalization itself changes. ExecuTorch searches them in the text as written."""
    added = read_object(tokenizer).get("added_tokens") or ()
    named = [str(one.get("content")) for one in added if one.get("normalized")]
    steps = tokenizers.Tokenizer.from_buffer(tokenizer.read_bytes()).normalizer if named else None
    return [] if steps is None else [one for one in named if steps.normalize_str(one) != one]


def lost_with_unknown_character(tokenizer: Path) -> str | None:
    """What ExecuTorch drops where a text has a character for which the BPE vocabulary of the
    tokenizer.json `tokenizer` has neither a token nor byte tokens, such as "its word"; None if
    every character has one.

    A vocabulary trained without byte fallback has tokens only for the characters of its training
    text.
    """
    content = read_object(tokenizer)
    model, steps = content["model"], list(_kinds(content.get("pre_tokenizer")))
    byte_level = "ByteLevel" in steps
    if byte_level or model.get("byte_fallback"):
        names = byte_letters() if byte_level else [f"<0x{byte:02X}>" for byte in range(256)]
        if model["vocab"].keys() >= {names[byte] for byte in BYTES_OF_TEXTS}:
            return None
    return "its word" if steps else "all of the text"


def adds_space_after_special_tokens(tokenizer: Path) -> bool:
    """Whether text after a special token gets a space here and on a phone, but not in transformers
    5. There `LlamaTokenizer` without `legacy`, or a converted tokenizer.model whose settings deny
    `legacy`, adds a space to the first part of a text only; no file that ExecuTorch reads can
    express this. Raises `InputError` if a file is damaged."""
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
    for inner in ("normalizers", "pretokenizers", "processors", "decoders"):
        for one in part.get(inner) or ():
            yield from _kinds(one)
