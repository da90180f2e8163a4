"""Writes a GGUF model's tokenizer as the tokenizer.json that Hugging Face and ExecuTorch read.

Two kinds are read, each in a file of its own: byte-level BPE, which GGUF calls gpt2, and
SentencePiece BPE, which it calls llama, or gemma4 where the file has its merges.
"""

from pathlib import Path
from typing import Any

from tokenizers import processors

from quatrain.errors import InputError, UnknownTokenizer
from quatrain.json_files import write_json
from quatrain.tokenizer.end_tokens import end_ids_of_gguf
from quatrain.tokenizer.executorch_splits import make_splits_cover_text
from quatrain.tokenizer.files import CONFIG, TOKENIZER
from quatrain.tokenizer.gguf.byte_level import byte_level_tokenizer
from quatrain.tokenizer.gguf.sentencepiece import WITH_MERGES, sentencepiece_tokenizer
from quatrain.tokenizer.gguf.vocabulary import GgufVocabulary
from quatrain.tokenizer.load import Tokenizer

_MAKERS = {
    "gpt2": byte_level_tokenizer,
    "llama": sentencepiece_tokenizer,
    WITH_MERGES: sentencepiece_tokenizer,
}


def tokenizer_files_from_gguf(metadata: dict[str, Any], source: Path, folder: Path) -> list[Path]:
    """Write tokenizer.json and tokenizer_config.json into `folder` and return their paths.

    `metadata` is that of the GGUF file `source`. Raises `UnknownTokenizer` if it holds another kind
    of tokenizer or cuts words in a way not known here, `InputError` if it is damaged.
    """
    kind = metadata.get("tokenizer.ggml.model")
    make = _MAKERS.get(kind) if isinstance(kind, str) else None
    if make is None:
        raise UnknownTokenizer(
            f"{source}: its tokenizer is {kind!r}, expected 'gpt2' (byte-level BPE) or 'llama' "
            "(SentencePiece BPE; 'gemma4' with merges); quantize from the model's Hugging Face "
            "folder, which holds a tokenizer.json, or give that file as --tokenizer"
        )
    vocabulary = GgufVocabulary(metadata, source)
    tokenizer, adds_bos = make(vocabulary)
    bos, eos = vocabulary.get("bos_token_id"), end_ids_of_gguf(metadata)
    first = [bos] if bos is not None and vocabulary.flag("add_bos_token", adds_bos) else []
    last = eos[:1] if vocabulary.flag("add_eos_token", False) else []
    if first or last:
        tokenizer.post_processor = _template_around(first, last, vocabulary)

    written = [folder / TOKENIZER, folder / CONFIG]
    make_splits_cover_text(tokenizer)
    tokenizer.save(str(written[0]))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if bos is not None:
        config |= {"bos_token": tokenizer.id_to_token(bos), "bos_token_id": bos}
    if eos:
        config |= {"eos_token": tokenizer.id_to_token(eos[0]), "eos_token_id": eos}
    templates = _chat_templates(metadata, source)
    if templates:
        config["chat_template"] = templates
    ends = list(dict.fromkeys([*eos, *Tokenizer(tokenizer, config, str(source)).eos_ids]))
    if ends:
        config["eos_token_id"] = ends
    config |= {"add_bos_token": bool(first), "clean_up_tokenization_spaces": False}
    write_json(written[1], config)
    return written


def _chat_templates(metadata: dict[str, Any], source: Path) -> str | list[dict[str, str]]:
    """As a tokenizer_config.json has them: the text of the only one, or each with its name."""
    key = "tokenizer.chat_template"
    stated = {n: text for n, text in metadata.items() if n == key or n.startswith(f"{key}.")}
    wrong = next((name for name, text in stated.items() if not isinstance(text, str)), None)
    if wrong is not None:
        raise InputError(
            f"{source}: {wrong} is {stated[wrong]!r}, expected a string; the file is damaged"
        )
    named = {
        name.removeprefix(f"{key}."): text
        for name, text in stated.items()
        if name.startswith(f"{key}.")
    }
    default = stated.get(key, "")
    if not named:
        return default
    named = ({"default": default} if default else {}) | named
    return [{"name": name, "template": text} for name, text in named.items()]


def _template_around(
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
