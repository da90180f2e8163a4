"""Writes a GGUF model's tokenizer as the tokenizer.json that Hugging Face and ExecuTorch read.

Two kinds are read, each in a file of its own: byte-level BPE, which GGUF calls gpt2, and
SentencePiece BPE, which it calls llama.
"""

from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import processors

from quatrain.errors import InputError
from quatrain.tokenizer.gguf_byte_level import byte_level_tokenizer
from quatrain.tokenizer.gguf_sentencepiece import sentencepiece_tokenizer
from quatrain.tokenizer.gguf_vocabulary import CONTROL, USER_DEFINED, GgufVocabulary
from quatrain.tokenizer.tokenizer import CONFIG, TOKENIZER, write_json

_MAKERS = {"gpt2": byte_level_tokenizer, "llama": sentencepiece_tokenizer}

# The tokens that end a text, a turn or a message: the key that states each, and the texts to know
# it by where a file does not, as those of many chat models do not. <|endoftext|> is not among
# them: it ends documents, and files of models that end turns with it state it as the end of text.
_ENDS: dict[str, tuple[str, ...]] = {
    "eos_token_id": (),
    "eot_token_id": (
        "<|eot_id|>",  # Llama 3
        "<|eot|>",  # Llama 4
        "<|im_end|>",  # Qwen, SmolLM
        "<|end|>",  # Phi
        "<end_of_turn>",  # Gemma
        "<|end_of_text|>",  # Granite; Llama's end of text
        "<end_of_utterance>",  # SmolVLM
    ),
    "eom_token_id": ("<|eom_id|>", "<|eom|>"),  # Llama 3 and 4
}


def tokenizer_files_from_gguf(metadata: dict[str, Any], source: Path, folder: Path) -> list[Path]:
    """Write tokenizer.json and tokenizer_config.json into `folder` and return their paths.

    `metadata` is that of the GGUF file `source`. Raises `InputError` where it holds another kind
    of tokenizer, is damaged, or cuts words in a way not known here.
    """
    kind = metadata.get("tokenizer.ggml.model")
    make = _MAKERS.get(kind) if isinstance(kind, str) else None
    if make is None:
        raise InputError(
            f"{source}: its tokenizer is {kind!r}, expected 'gpt2' (byte-level BPE) or 'llama' "
            "(SentencePiece BPE); quantize from the model's Hugging Face folder, which holds a "
            "tokenizer.json"
        )
    vocabulary = GgufVocabulary(metadata, source)
    tokenizer, adds_bos = make(vocabulary)
    bos, eos = vocabulary.get("bos_token_id"), eos_ids(metadata)
    first = [bos] if bos is not None and vocabulary.flag("add_bos_token", adds_bos) else []
    last = eos[:1] if vocabulary.flag("add_eos_token", False) else []
    if first or last:
        tokenizer.post_processor = _around(first, last, vocabulary)

    written = [folder / TOKENIZER, folder / CONFIG]
    tokenizer.save(str(written[0]))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if bos is not None:
        config |= {"bos_token": tokenizer.id_to_token(bos), "bos_token_id": bos}
    if eos:
        config |= {"eos_token": tokenizer.id_to_token(eos[0]), "eos_token_id": eos}
    if isinstance(metadata.get("tokenizer.chat_template"), str):
        config["chat_template"] = metadata["tokenizer.chat_template"]
    config |= {"add_bos_token": bool(first), "clean_up_tokenization_spaces": False}
    write_json(written[1], config)
    return written


def eos_ids(metadata: dict[str, Any]) -> list[int]:
    """The tokens that end a text, a turn or a message, the end of text first."""
    found: list[int] = []
    for key, texts in _ENDS.items():
        stated = metadata.get(f"tokenizer.ggml.{key}")
        found += [stated] if isinstance(stated, int) else _special_tokens(metadata, texts)
    return list(dict.fromkeys(found))


def _special_tokens(metadata: dict[str, Any], texts: tuple[str, ...]) -> list[int]:
    """The control and user-defined tokens that are one of `texts`."""
    tokens, types = (metadata.get(f"tokenizer.ggml.{key}") for key in ("tokens", "token_type"))
    if not (isinstance(tokens, list) and isinstance(types, np.ndarray)):
        return []
    special = np.flatnonzero(np.isin(types[: len(tokens)], (CONTROL, USER_DEFINED)))
    return [int(index) for index in special if tokens[index] in texts]


def _around(
    first: list[int], last: list[int], vocabulary: GgufVocabulary
) -> processors.TemplateProcessing:
    """Puts the tokens `first` and `last` around a text."""
    names = {index: vocabulary.tokens[index] for index in [*first, *last]}
    for name in names.values():
        if name.startswith("$") or ":" in name:  # a template reads these otherwise
            raise InputError(
                f"{vocabulary.source}: the token {name!r} cannot begin or end every text; "
                "tokenizer.ggml.bos_token_id or eos_token_id is damaged"
            )
    return processors.TemplateProcessing(
        single=[*(names[index] for index in first), "$A", *(names[index] for index in last)],
        special_tokens=[(name, index) for index, name in names.items()],
    )
