"""Byte-level BPE (GPT-2's, and most since) from a GGUF file, as a `tokenizers.Tokenizer`.

A file names how its family cuts a text into words before merging, and does not say how that is.
The names are llama.cpp's. The patterns are those of the families' own tokenizer.json, which differ
from llama.cpp's rewritten ones in how they treat upper and lower case beyond ASCII.
"""

from dataclasses import dataclass
from typing import Any

import tokenizers
from tokenizers import Regex, decoders, models, pre_tokenizers

from quatrain.errors import UnknownTokenizer
from quatrain.tokenizer.gguf.vocabulary import GgufVocabulary, mark_special

# Words with a case of their own inside (`fooBar` is two), as GPT-4o and Mistral's Tekken cut them.
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LEAD = r"[^\r\n\p{L}\p{N}]?"  # the space, or a mark, that a word takes with it
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"


def _words(digits: str, letters: str = r"\p{L}") -> str:
    """As Llama 3 and Qwen 2 cut: short forms, words, numbers of so many `digits`, the rest."""
    rest = rf" ?[^\s{letters}\p{{N}}]+[\r\n]*"
    return rf"{_SHORT}|{_LEAD}[{letters}]+|\p{{N}}{digits}|{rest}|{_SPACES}"


def _cased_words(digits: str, short: str) -> str:
    """As GPT-4o and Tekken cut: `short` is what a word takes along behind it."""
    words = rf"{_LEAD}{_UPPER}*{_LOWER}+{short}|{_LEAD}{_UPPER}+{_LOWER}*{short}"
    return rf"{words}|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"


@dataclass(frozen=True)
class _Cut:
    """How one family cuts text into words before merging, and what goes with it.

    `pattern`: of a word; None: GPT-2's own.
    """

    pattern: str | None = None
    single_digits: bool = False
    ignore_merges: bool = False  # a word that is a token is never taken apart
    adds_bos: bool = False


LLAMA3_WORDS, QWEN2_WORDS = _words("{1,3}"), _words("")
QWEN3_5_WORDS = _words("", r"\p{L}\p{M}")
_SINGLE_DIGITS = _Cut(single_digits=True)
_LLAMA3 = _Cut(LLAMA3_WORDS, ignore_merges=True, adds_bos=True)
# Qwen's own file also composes characters (NFC). llama.cpp does not, and ExecuTorch's C++ reads
# "é" wrongly where it is asked to.
_QWEN2 = _Cut(QWEN2_WORDS)
_GPT4O = _Cut(_cased_words("{1,3}", f"{_SHORT}?"), ignore_merges=True)

_CUTS = {
    "gpt-2": _Cut(),
    "smollm": _SINGLE_DIGITS,
    "refact": _SINGLE_DIGITS,  # Granite 3
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "lfm2": _LLAMA3,
    "smaug-bpe": _Cut(LLAMA3_WORDS, ignore_merges=True),  # SmolLM3: Llama 3's without its BOS
    "dbrx": _Cut(LLAMA3_WORDS),  # Phi-4
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "qwen35": _Cut(QWEN3_5_WORDS),
    "gpt-4o": _GPT4O,  # Phi-4-mini
    "llama4": _GPT4O,
    "tekken": _Cut(_cased_words("", ""), ignore_merges=True, adds_bos=True),  # Mistral Nemo
}


def byte_level_tokenizer(vocabulary: GgufVocabulary) -> tuple[tokenizers.Tokenizer, bool]:
    """The tokenizer, and whether its family was trained with a beginning-of-text token.

    Raises `InputError` where a merge is not one of tokens, and `UnknownTokenizer` where words are
    cut in a way not known.
    """
    name = vocabulary.get("pre")
    cut = _CUTS.get(name) if isinstance(name, str) else None
    if cut is None:
        raise UnknownTokenizer(
            f"{vocabulary.source}: its tokenizer.ggml.pre is {name!r}, expected one of "
            f"{', '.join(_CUTS)}; "
            "quantize from the model's Hugging Face folder, which holds a tokenizer.json, or give "
            "that file as --tokenizer"
        )
    ids = vocabulary.ids(vocabulary.tokens)
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab=ids, merges=vocabulary.merges(ids), ignore_merges=cut.ignore_merges)
    )
    tokenizer.pre_tokenizer = _pre_tokenizer(cut)
    tokenizer.decoder = decoders.ByteLevel()
    if vocabulary.get("token_type") is not None:
        mark_special(tokenizer, vocabulary.tokens, vocabulary.numbers("token_type"))
    return tokenizer, cut.adds_bos


def _pre_tokenizer(cut: _Cut) -> Any:
    whole = cut.pattern is None
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=whole)
    if cut.pattern is not None:
        split = pre_tokenizers.Split(Regex(cut.pattern), "isolated")
        return pre_tokenizers.Sequence([split, byte_level])
    if cut.single_digits:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    return byte_level
