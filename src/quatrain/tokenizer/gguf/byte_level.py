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
    """The pattern of Llama 3 and Qwen 2: contractions, words, numbers of at most `digits` digits,
    the rest."""
    rest = rf" ?[^\s{letters}\p{{N}}]+[\r\n]*"
    return rf"{_SHORT}|{_LEAD}[{letters}]+|\p{{N}}{digits}|{rest}|{_SPACES}"


def _cased_words(digits: str, short: str) -> str:
    """The pattern of GPT-4o and Tekken: `short` is the suffix that may follow a word."""
    words = rf"{_LEAD}{_UPPER}*{_LOWER}+{short}|{_LEAD}{_UPPER}+{_LOWER}*{short}"
    return rf"{words}|\p{{N}}{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"


@dataclass(frozen=True)
class _Cut:
    """How one family cuts text into words before merging, and what goes with it.

    `patterns`: of a word, each for what those before it left between its words; none: GPT-2's own.
    """

    patterns: tuple[str, ...] = ()
    single_digits: bool = False
    ignore_merges: bool = False  # a word that is a token is never taken apart
    adds_bos: bool = False


LLAMA3_WORDS, QWEN2_WORDS = _words("{1,3}"), _words("")
QWEN3_5_WORDS = _words("", r"\p{L}\p{M}")
_GPT4O_WORDS, TEKKEN_WORDS = _cased_words("{1,3}", f"{_SHORT}?"), _cased_words("", "")
_ASCII_MARKS = r"[!-/:-@\[-`{-~]"
# Numbers, then what is written in Chinese characters or Japanese syllables, then the rest.
_DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    rf"{_ASCII_MARKS}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}",
)
_AFMOE = (
    r"\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))",  # threes, from the end of the number
    "[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u3040-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0eff"
    "\u1780-\u17ff\u1000-\u109f\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+",
    _DEEPSEEK3[-1],
)
# Letters with a case, but for alphabets that are newer than the tokenizer, and those of formulas.
_DEEPSEEK_LETTERS = (
    "(?:(?![\u0560-\u0588\u10c7-\u10ff\u1c80-\u1c8f\u2d00-\u2d2d\ua790-\ua7ff\uab30-\uab68"
    "\U00010570-\U000105bc\U00016e40-\U00016e7f\U0001d400-\U0001d7cb\U0001df00-\U0001df1e])"
    r"[\p{Lu}\p{Ll}\p{Lt}])+"
)
_DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?{_DEEPSEEK_LETTERS}",
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    r"\s+$",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    r"\p{N}",
)
_DEEPSEEK_CODER = (
    r"[\r\n]",
    r"\s?\p{L}+",
    r"\s?\p{P}+",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    r"\p{N}",
)
# What is written in Hangul, punctuation of Chinese, its phonetic signs, what is written in Chinese
# characters or Japanese syllables; then the rest.
_YOUTU = (
    "[\uac00-\ud7a3\u3131-\u318e]+"
    "|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c\u3001-\u303f\ufe30-\ufe4f]+"
    "|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    _cased_words("", f"{_SHORT}?"),
)

# Qwen's own file also composes characters (NFC). llama.cpp does not, and ExecuTorch's C++ reads
# "é" wrongly where it is asked to.
_FAMILIES = (
    # Others: Exaone 4, Phi 1.5 and 2, OLMoE, A.X 4
    (_Cut(), "gpt-2 exaone4 phi-2 olmo a.x-4.0 mellum trillion granite-docling"),
    # SmolLM2, Granite 3, Cohere; Exaone 3.5
    (_Cut(single_digits=True), "smollm refact command-r starcoder minerva-7b exaone"),
    (
        _Cut((LLAMA3_WORDS,), ignore_merges=True, adds_bos=True),
        "llama-bpe llama3 llama-v3 lfm2 falcon3 falcon-h1 pixtral midm-2.0",
    ),
    # SmolLM3: Llama 3's without its BOS
    (_Cut((LLAMA3_WORDS,), ignore_merges=True), "smaug-bpe"),
    # Phi-4 and OLMo 2; GLM-4
    (_Cut((LLAMA3_WORDS,)), "dbrx glm4 chatglm-bpe"),
    (_Cut((QWEN2_WORDS,)), "qwen2 deepseek-r1-qwen stablelm2 megrez kormo hunyuan"),
    (_Cut((QWEN3_5_WORDS,)), "qwen35"),
    # Phi-4-mini
    (_Cut((_GPT4O_WORDS,), ignore_merges=True), "gpt-4o llama4 kanana2"),
    # Mistral Nemo
    (_Cut((TEKKEN_WORDS,), ignore_merges=True, adds_bos=True), "tekken"),
    # Seed-OSS
    (_Cut((QWEN2_WORDS.replace(r"]+[\r\n]*", "]+"),)), "seed-coder"),
    (_Cut((r"\p{N}{1,3}", _words("+")), ignore_merges=True), "minicpm5"),
    (_Cut(_DEEPSEEK3), "hunyuan-dense deepseek-v3"),
    (_Cut(_DEEPSEEK_CODER), "deepseek-coder"),
    (_Cut(_DEEPSEEK_LLM), "deepseek-llm"),
    (_Cut(_AFMOE), "afmoe"),
    # Cohere 2's: numbers in threes from their end
    (_Cut((r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O_WORDS)), "tiny_aya"),
    # OLMo 2 with tokens of several words: numbers in threes from their end
    (_Cut((r"\p{N}+", r"(?=(\d{3})+(?!\d))")), "superbpe"),
    (_Cut(_YOUTU, ignore_merges=True), "youtu"),
    # Viking
    (_Cut((r" ?[^(\s|.,!?…。，、।۔،)]+", r"\p{N}")), "viking"),
)
_CUTS = {name: cut for cut, names in _FAMILIES for name in names.split()}


def byte_level_tokenizer(vocabulary: GgufVocabulary) -> tuple[tokenizers.Tokenizer, bool]:
    """The tokenizer, and whether its family was trained with a beginning-of-text token.

    Raises `InputError` if a merge is not one of tokens, and `UnknownTokenizer` if words are cut in
    a way not known.
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
    steps: list[Any] = [
        pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in cut.patterns
    ]
    if cut.single_digits:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not cut.patterns))
    return pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
