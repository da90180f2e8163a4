"""Writes a GGUF model's tokenizer as the tokenizer.json that Hugging Face and ExecuTorch read."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors

from quatrain.errors import InputError
from quatrain.tokenizer import CONFIG, TOKENIZER, write_json

_CONTROL, _USER_DEFINED = 3, 4  # in tokenizer.ggml.token_type

# How Llama 3 and Qwen 2 cut text into words. They differ in how many digits make one.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def tokenizer_files_from_gguf(metadata: dict[str, Any], source: Path, folder: Path) -> list[Path]:
    """Write tokenizer.json and tokenizer_config.json into `folder` and return their paths.

    `metadata` is that of the GGUF file `source`, which holds a GPT-2 byte-level BPE. Raises
    `InputError` where it holds another kind of tokenizer, or cuts words in a way not known here.
    """
    tokens, merges = _vocabulary(metadata, source)
    cut = _pre_tokenizer(metadata, source)
    bos, eos = metadata.get("tokenizer.ggml.bos_token_id"), eos_ids(metadata)
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", cut.adds_bos)

    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab={token: index for index, token in enumerate(tokens)},
            merges=merges,
            ignore_merges=cut.ignore_merges,
        )
    )
    tokenizer.pre_tokenizer = cut.pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    if add_bos and bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[tokens[bos], "$A"], special_tokens=[(tokens[bos], bos)]
        )
    _mark_special(tokenizer, tokens, metadata.get("tokenizer.ggml.token_type"))
    written = [folder / TOKENIZER, folder / CONFIG]
    tokenizer.save(str(written[0]))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if bos is not None:
        config |= {"bos_token": tokens[bos], "bos_token_id": bos}
    if eos:
        config |= {"eos_token": tokens[eos[0]], "eos_token_id": eos}
    if isinstance(metadata.get("tokenizer.chat_template"), str):
        config["chat_template"] = metadata["tokenizer.chat_template"]
    config |= {"add_bos_token": bool(add_bos), "clean_up_tokenization_spaces": False}
    write_json(written[1], config)
    return written


def eos_ids(metadata: dict[str, Any]) -> list[int]:
    """The tokens that end a text, a turn or a message, the end of text first."""
    keys = ("eos_token_id", "eot_token_id", "eom_token_id")
    found = (metadata.get(f"tokenizer.ggml.{key}") for key in keys)
    return list(dict.fromkeys(token for token in found if isinstance(token, int)))


def _vocabulary(metadata: dict[str, Any], source: Path) -> tuple[list[str], list[tuple[str, str]]]:
    kind = metadata.get("tokenizer.ggml.model")
    if kind != "gpt2":
        raise InputError(
            f"{source}: its tokenizer is {kind!r}, expected 'gpt2' (byte-level BPE); "
            "quantize from the model's Hugging Face folder, which holds a tokenizer.json"
        )
    tokens = _strings(metadata, "tokens", source)
    known = set(tokens)
    merges: list[tuple[str, str]] = []
    for merge in _strings(metadata, "merges", source):
        left, _, right = merge.partition(" ")
        if not known.issuperset((left, right, left + right)):
            raise InputError(
                f"{source}: the merge {merge!r} is not of two tokens that make a third; "
                "the file is damaged"
            )
        merges.append((left, right))
    for key in ("bos_token_id", "eos_token_id", "eot_token_id", "eom_token_id"):
        token = metadata.get(f"tokenizer.ggml.{key}")
        if token is not None and not (isinstance(token, int) and 0 <= token < len(tokens)):
            raise InputError(
                f"{source}: tokenizer.ggml.{key} is {token!r}, expected below {len(tokens)}"
            )
    return tokens, merges


def _strings(metadata: dict[str, Any], key: str, source: Path) -> list[str]:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if not isinstance(value, list):
        raise InputError(f"{source}: has no list tokenizer.ggml.{key}; the file is damaged")
    return value


@dataclass(frozen=True)
class _Cut:
    """How one family cuts text into words before merging, and what goes with it."""

    pre_tokenizer: Any
    ignore_merges: bool = False  # a word that is a token is never taken apart
    adds_bos: bool = False


def _pre_tokenizer(metadata: dict[str, Any], source: Path) -> _Cut:
    name = metadata.get("tokenizer.ggml.pre")
    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name == "gpt-2":
        return _Cut(gpt2)
    if name == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        return _Cut(pre_tokenizers.Sequence([digits, gpt2]))
    if name == "llama-bpe":
        return _Cut(_words("{1,3}"), ignore_merges=True, adds_bos=True)
    if name == "qwen2":
        # Qwen's own file also composes characters (NFC). llama.cpp does not, and ExecuTorch's
        # C++ reads "é" wrongly where it is asked to.
        return _Cut(_words(""))
    raise InputError(
        f"{source}: its tokenizer.ggml.pre is {name!r}, expected gpt-2, smollm, llama-bpe or "
        "qwen2; quantize from the model's Hugging Face folder, which holds a tokenizer.json"
    )


def _words(digits: str) -> Any:
    pattern = Regex(_WORDS.format(digits=digits))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), byte_level])


def _mark_special(tokenizer: tokenizers.Tokenizer, tokens: list[str], types: Any) -> None:
    if not isinstance(types, np.ndarray):
        return
    # In one call each: every call rebuilds the matcher.
    tokenizer.add_special_tokens(
        [AddedToken(text, normalized=False, special=True)
         for text, kind in zip(tokens, types, strict=False) if kind == _CONTROL]
    )  # fmt: skip
    tokenizer.add_tokens(
        [AddedToken(text, normalized=False, special=False)
         for text, kind in zip(tokens, types, strict=False) if kind == _USER_DEFINED]
    )  # fmt: skip
