"""The tokenizer of a model or checkpoint, written, and what there is to say of it."""

from dataclasses import dataclass
from pathlib import Path

import tokenizers

from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.float_model import FloatModel
from quatrain.errors import UnknownTokenizer
from quatrain.tokenizer.copies import copy_tokenizer_files
from quatrain.tokenizer.end_tokens import token_ids
from quatrain.tokenizer.on_a_phone import unread_on_a_phone


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
        return WrittenTokenizer(files, _notes(files, source.config.vocab_size))
    try:
        files = source.write_tokenizer(folder)
    except UnknownTokenizer as error:
        return WrittenTokenizer([], [f"There is no tokenizer with it: {error}."])
    return WrittenTokenizer(files, _notes(files, source.config.vocab_size) if files else [])


def _notes(files: list[Path], vocab_size: int) -> list[str]:
    return [*_beyond(files, vocab_size), *_not_on_a_phone(files[0])]


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


def _not_on_a_phone(tokenizer: Path) -> list[str]:
    unread = unread_on_a_phone(tokenizer)
    if unread is None:
        return []
    return [
        f"ExecuTorch's tokenizer in an app does not read this tokenizer.json ({unread}), which "
        "works here. For a phone give another form of it as --tokenizer, such as the model's "
        "tokenizer.model."
    ]
