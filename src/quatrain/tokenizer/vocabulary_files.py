"""Tokenizers in other files than tokenizer.json, built as by transformers' AutoTokenizer.

| file | it is |
|---|---|
| `tokenizer.model` | SentencePiece's BPE (Llama 2, Mistral, Gemma), or tiktoken's ranks (Llama 3) |
| `vocab.json` and `merges.txt` | byte-level BPE (Qwen, GPT-2), cut as the tokenizer's class does |
| `tekken.json` | Mistral's byte-level BPE, which states how it cuts |

None of them says all that its tokenizer does: what is missing is its class's in transformers, which
tokenizer_config.json names, or else config.json's model_type.
"""

from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models, processors

from quatrain.errors import InputError, UnknownTokenizer
from quatrain.json_files import read_object
from quatrain.stand_ins import refuse_stand_in
from quatrain.tokenizer.byte_ranks import read_tekken, read_tiktoken
from quatrain.tokenizer.class_tokens import NAMED
from quatrain.tokenizer.files import MERGES, SENTENCEPIECE, TEKKEN, VOCABULARY, tokenizer_class
from quatrain.tokenizer.gguf.sentencepiece import sentencepiece_tokenizer
from quatrain.tokenizer.gguf.vocabulary import GgufVocabulary
from quatrain.tokenizer.named_tokens import special_texts
from quatrain.tokenizer.rebuilt import prepare_as, refuse_unknown
from quatrain.tokenizer.sentencepiece_model import sentencepiece_metadata

_Config = dict[str, Any]
# Classes whose vocab.json and merges.txt are read.
_BYTE_LEVEL = ("Qwen2Tokenizer", "GPT2Tokenizer", "CodeGenTokenizer")


def is_vocabulary(path: Path) -> bool:
    """Whether `path` is one of the files that are read here, by its name."""
    return path.name in (SENTENCEPIECE, VOCABULARY, TEKKEN)


def read_vocabulary(path: Path, config: _Config) -> tuple[tokenizers.Tokenizer, _Config]:
    """(the tokenizer in `path`, without tokens that only its tokenizer_config.json's `config`
    names; `config` with the tokens that go without saying).

    Raises `InputError` if a file is damaged, and `UnknownTokenizer` if it is of another kind.
    """
    refuse_stand_in(path)
    name = tokenizer_class(path, config)
    if path.name == VOCABULARY:
        model = _byte_level(path, name, config)
    elif path.name == TEKKEN:
        model = read_tekken(path)
    elif path.read_bytes()[:1] == b"\n":
        model, own = _sentencepiece(path, name, config)
        config = own | config
    else:
        model, config = read_tiktoken(path, config)
    return model, {**NAMED.get(name, {}), **config}


def ends_added(model: tokenizers.Tokenizer, config: _Config) -> None:
    """Have `model` put the tokens around a text that `config` says: `add_bos_token` and
    `add_eos_token`, which a tokenizer.json says itself."""
    names = special_texts(config)
    begin = names.get("bos_token") if config.get("add_bos_token") else None
    end = names.get("eos_token") if config.get("add_eos_token") else None
    around = {name: model.token_to_id(name) for name in (begin, end) if name is not None}
    if around:
        single = [begin or "", "$A", end or ""]
        model.post_processor = processors.TemplateProcessing(
            single=[name for name in single if name], special_tokens=list(around.items())
        )


def _sentencepiece(path: Path, name: str, config: _Config) -> tuple[tokenizers.Tokenizer, _Config]:
    refuse_unknown(
        name,
        path,
        "as --tokenizer the tokenizer.json that transformers' "
        "AutoTokenizer.from_pretrained(FOLDER).save_pretrained(OUT) writes, with "
        '"tokenizer_class": "PreTrainedTokenizerFast" in its tokenizer_config.json',
    )
    metadata = sentencepiece_metadata(path)
    llama = name == "LlamaTokenizer"
    if llama:  # which prepares a text itself
        metadata |= {
            "tokenizer.ggml.precompiled_charsmap": b"",
            "tokenizer.ggml.remove_extra_whitespaces": False,
            "tokenizer.ggml.add_space_prefix": config.get("add_prefix_space") is not False,
        }
    metadata["tokenizer.ggml.leading_space_is_prefix"] = llama or config.get("legacy") is False
    vocabulary = GgufVocabulary(metadata, path)
    model, _ = sentencepiece_tokenizer(vocabulary)
    if llama:
        model.model.unk_token = None  # it leaves out what it has no piece for
    if name == "CodeLlamaTokenizer":
        prepare_as(name, model, config)
    stated = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown"}
    ids = {key: vocabulary.get(f"{which}_token_id") for key, which in stated.items()}
    return model, {key: vocabulary.tokens[index] for key, index in ids.items() if index is not None}


def _byte_level(path: Path, name: str, config: _Config) -> tokenizers.Tokenizer:
    if name not in _BYTE_LEVEL:
        raise UnknownTokenizer(
            f"{path}: its tokenizer's class is {name or 'not stated'}, for which this file is not "
            f"supported, expected {' or '.join(_BYTE_LEVEL)}; give a tokenizer.json as --tokenizer"
        )
    vocabulary, merges = read_object(path), _merges(path.with_name(MERGES))
    for pair in merges:  # of which one that makes no token ends tokenizers in a panic
        if not {*pair, "".join(pair)} <= vocabulary.keys():
            raise InputError(
                f"{path}: does not match {MERGES}, whose merge {' '.join(pair)!r} does not join "
                "two of its tokens into a third; download both again"
            )
    try:
        model = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    except Exception as error:  # tokenizers raises bare Exception
        said = f"{path}: does not match {MERGES}: {error}; download both again"
        raise InputError(said) from error
    prepare_as(name, model, config)
    return model


def _merges(path: Path) -> list[tuple[str, str]]:
    refuse_stand_in(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeError) as error:
        raise UnknownTokenizer(
            f"{path}: cannot be read, but {VOCABULARY} needs it: {error}; download it, or give a "
            "tokenizer.json as --tokenizer"
        ) from error
    # The first line may state a version, and a merge may begin with the same sign.
    stated = lines[1:] if lines[0].startswith("#version") else lines
    pairs = [tuple(line.rstrip("\r").split(" ")) for line in stated if line.strip()]
    wrong = next((pair for pair in pairs if len(pair) != 2), None)
    if wrong is not None:
        raise InputError(
            f"{path}: {' '.join(wrong)[:80]!r} is not a pair of tokens; download it again"
        )
    return [(left, right) for left, right in pairs]
