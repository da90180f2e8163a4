"""The tokenizer of a model or checkpoint, written, and what there is to say of it."""

from dataclasses import dataclass
from pathlib import Path

import tokenizers

from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.float_model import FloatModel
from quatrain.errors import UnknownTokenizer
from quatrain.tokenizer.copies import copy_tokenizer_files
from quatrain.tokenizer.end_tokens import token_ids
from quatrain.tokenizer.files import unread_vocabularies


@dataclass(frozen=True)
class WrittenTokenizer:
    """The `files` that were written, none where there was no tokenizer, and `notes`, whole
    sentences."""

    files: list[Path]
    notes: list[str]


def write_tokenizer_of(
    source: FloatModel | Checkpoint, folder: Path, given: Path | None
) -> WrittenTokenizer:
    """Write the tokenizer.json `given`, or else `source`'s own, to `folder`.

    One of a kind that is not read is left out, and that is said. Raises `InputError` where a file
    is damaged.
    """
    if given is not None:
        begin, end = source.params.get("bos_idx"), token_ids(source.params.get("eos_idx"))
        files = copy_tokenizer_files(given, folder, begin, end)
        return WrittenTokenizer(files, _beyond(files, source.config.vocab_size))
    try:
        files = source.write_tokenizer(folder)
    except UnknownTokenizer as error:
        return WrittenTokenizer([], [f"There is no tokenizer with it: {error}."])
    notes = _beyond(files, source.config.vocab_size) if files else _unread(source.source)
    return WrittenTokenizer(files, notes)


def _beyond(files: list[Path], vocab_size: int) -> list[str]:
    """What there is to say where the tokenizer has tokens that the embedding has no row for."""
    vocabulary = tokenizers.Tokenizer.from_file(str(files[0])).get_vocab()
    beyond = sorted((index, token) for token, index in vocabulary.items() if index >= vocab_size)
    if not beyond:
        return []
    (index, token), more = beyond[0], len(beyond) - 1
    named = f"{token!r} ({index})" + (f" and {more} more" if more else "")
    return [
        f"The tokenizer has tokens that the model has no row for, whose ids go to {vocab_size - 1}:"
        f" {named}. A prompt that has one is refused. Where prompts need them, quantize the model "
        "whose embedding was resized to this tokenizer."
    ]


def _unread(source: Path) -> list[str]:
    folder = source if source.is_dir() else source.parent
    return [
        f"{folder / name} alone is not read as a tokenizer. Let transformers write the "
        "tokenizer.json, AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER), and give "
        "it as --tokenizer."
        for name in unread_vocabularies(folder)[:1]
    ]
