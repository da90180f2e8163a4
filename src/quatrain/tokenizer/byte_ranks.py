"""Tokenizers whose files list tokens as bytes, in the order in which pairs are merged.

| file | |
|---|---|
| `tokenizer.model` | tiktoken's ranks (Llama 3): a token in base64 and its rank, a line each |
| `tekken.json` | Mistral's, which states how it cuts |
"""

import base64
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from quatrain.errors import InputError, UnknownTokenizer
from quatrain.json_files import read_object
from quatrain.tokenizer.gguf.byte_level import LLAMA3_WORDS
from quatrain.tokenizer.named_tokens import tokens_by_id

_MOST_SPECIAL = 1 << 16  # which no model has


def read_tekken(path: Path) -> tokenizers.Tokenizer:
    """The vocabulary's tokens come behind the special ones; those that only pad it are left out."""
    content = read_object(path)
    try:
        config, special = content["config"], content["special_tokens"]
        names = [str(token["token_str"]) for token in sorted(special, key=lambda one: one["rank"])]
        count = config.get("default_num_special_tokens") or len(names)
        _require_few_special(count, path)
        names += [f"<SPECIAL_{index}>" for index in range(len(names), count)]
        size = config.get("default_vocab_size")
        kept = content["vocab"][: None if size is None else size - count]
        ranks = [base64.b64decode(token["token_bytes"]) for token in kept]
        pattern = config["pattern"]
    except KeyError as error:
        raise UnknownTokenizer(
            f"{path}: has no {error}: it is one of Mistral's first files of this kind, or "
            "damaged; give a tokenizer.json as --tokenizer"
        ) from error
    except (TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{path}: is not a tekken.json, or is damaged: {error}; download it again, or give a "
            "tokenizer.json as --tokenizer"
        ) from error
    return _from_ranks(ranks, names, 0, pattern, path)


def read_tiktoken(
    path: Path, config: dict[str, Any]
) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """(the tokenizer, with Llama 3's pattern and its special tokens after the others; the `config`
    of its tokenizer_config.json, or Llama 3's defaults).

    Raises `UnknownTokenizer` if the file is in another format, or no file names its special tokens,
    and `InputError` if the file that names them is damaged.
    """
    try:
        lines = [line.split() for line in path.read_bytes().splitlines() if line]
        ranks = [base64.b64decode(token) for token, _ in lines]
        in_order = [int(rank) for _, rank in lines] == list(range(len(ranks)))
    except (OSError, ValueError) as error:
        raise UnknownTokenizer(
            f"{path}: is neither a SentencePiece model nor tiktoken's ranks: {error}; download it "
            "again, or give a tokenizer.json as --tokenizer"
        ) from error
    if not config.get("added_tokens_decoder"):
        config = (_llama3_config(path, len(ranks)) or {}) | config
    named = config.get("added_tokens_decoder") or {}
    if not in_order or not named:
        raise UnknownTokenizer(
            f"{path}: holds tiktoken's ranks, "
            + ("not in order" if named else "and no tokenizer_config.json names its special tokens")
            + "; give the tokenizer.json of the model's Hugging Face folder as --tokenizer"
        )
    special = {index: token.content for index, token in tokens_by_id(named, str(path)).items()}
    behind = range(len(ranks), max(special) + 1)
    _require_few_special(len(behind), path)
    names = [special.get(index, f"<|reserved_token_{index}|>") for index in behind]
    return _from_ranks(ranks, names, len(ranks), LLAMA3_WORDS, path), config


def _require_few_special(count: int, path: Path) -> None:
    """Raise `InputError` before a list of that length is created."""
    if count > _MOST_SPECIAL:
        raise InputError(
            f"{path}: is said to have {count} special tokens, more than any model has: it, or the "
            "tokenizer_config.json beside it, is damaged; download both again"
        )


def _from_ranks(
    ranks: list[bytes], special: list[str], first_special: int, pattern: str, path: Path
) -> tokenizers.Tokenizer:
    """Byte-level BPE from a list of tokens, the best first: any two whose concatenation is a token
    are merged. The `special` ones have ids from `first_special` on, the others follow or precede
    them."""
    letters = byte_letters()
    texts = ["".join(letters[byte] for byte in token) for token in ranks]
    offset = len(special) if first_special == 0 else 0
    ids = {text: index + offset for index, text in enumerate(texts)}
    ids |= {text: index + first_special for index, text in enumerate(special)}
    known = {text: rank for rank, text in enumerate(texts)}
    merges = []
    for text in texts:
        cuts = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        pairs = [pair for pair in cuts if pair[0] in known and pair[1] in known]
        merges += sorted(pairs, key=lambda pair: (known[pair[0]], known[pair[1]]))
    if len(ids) != len(texts) + len(special):
        raise InputError(f"{path}: has a token twice; the file is damaged, download it again")
    model = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=merges, ignore_merges=True))
    try:
        cut_words(model, pattern, prefix=False)
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"{path}: its pattern cannot be read: {error}") from error
    model.decoder = decoders.ByteLevel()
    model.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return model


def cut_words(model: tokenizers.Tokenizer, pattern: str, prefix: bool) -> None:
    """Make byte-level `model` split a text into words by `pattern`, with or without a space put
    before it."""
    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    letters = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)
    model.pre_tokenizer = pre_tokenizers.Sequence([split, letters])


def byte_letters() -> list[str]:
    """The letter that byte-level BPE writes for each byte: itself where it can be seen, and else
    the next from U+0100 on (GPT-2's `bytes_to_unicode`)."""
    seen = {*range(33, 127), *range(161, 173), *range(174, 256)}
    hidden = iter(range(256, 512))
    return [chr(byte if byte in seen else next(hidden)) for byte in range(256)]


_RANKS, _SPECIAL = 128_000, 256  # how many tokens of text Llama 3 has, and how many special ones
_BEGIN, _END, _TURN = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"
_HEADER = "<|start_header_id|>", "<|end_header_id|>"
# By their place behind the tokens of text; the others are reserved, numbered in order.
_OF_3 = {0: _BEGIN, 1: _END, 6: _HEADER[0], 7: _HEADER[1], 9: _TURN}
_OF_3_1 = {**_OF_3, 4: "<|finetune_right_pad_id|>", 8: "<|eom_id|>", 10: "<|python_tag|>"}
_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)


def _llama3_config(tokenizer: Path, ranks: int) -> dict[str, Any] | None:
    """A tokenizer_config.json for the file `tokenizer`, which holds this number of `ranks`; None if
    it is not Llama 3's.

    It is if there are 128,000, or if params.json beside it has 256 tokens more. Llama 3.1 and
    later, which scale their rotary embedding, name more of their special tokens.
    """
    file = tokenizer.with_name("params.json")
    params = read_object(file) if file.is_file() else {}
    if params.get("vocab_size", _RANKS + _SPECIAL) != ranks + _SPECIAL:
        return None
    names = _special_tokens(_OF_3_1 if params.get("use_scaled_rope") else _OF_3)
    ends = [ranks + names.index(name) for name in (_END, "<|eom_id|>", _TURN) if name in names]
    return {
        "added_tokens_decoder": {
            str(ranks + place): {"content": name, "normalized": False, "special": True}
            for place, name in enumerate(names)
        },
        "bos_token": _BEGIN,
        "eos_token": _END,
        "eos_token_id": ends,
        "add_bos_token": True,
        "chat_template": _TEMPLATE,
    }


def _special_tokens(named: dict[int, str]) -> list[str]:
    free = [place for place in range(_SPECIAL) if place not in named]
    reserved = {place: f"<|reserved_special_token_{i}|>" for i, place in enumerate(free)}
    return [text for _, text in sorted({**named, **reserved}.items())]
