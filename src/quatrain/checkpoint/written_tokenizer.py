"""Writes the tokenizer of a model or checkpoint, with notes on what the user should know of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers

from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.float_model import FloatModel
from quatrain.errors import UnknownTokenizer
from quatrain.json_files import read_object
from quatrain.short_lists import and_more
from quatrain.tokenizer.copies import copy_tokenizer_files
from quatrain.tokenizer.end_tokens import token_ids
from quatrain.tokenizer.executorch_form import stated_metaspace
from quatrain.tokenizer.executorch_support import (
    adds_space_after_special_tokens,
    lost_with_unknown_character,
    normalized_tokens,
    tokens_that_strip_spaces,
    unsupported_part,
)
from quatrain.tokenizer.files import read_config_of, tokenizer_in
from quatrain.tokenizer.mistral_words import has_wrong_mistral_words


@dataclass(frozen=True)
class WrittenTokenizer:
    """The written `files`, none without a tokenizer, and `notes`, whole sentences."""

    files: list[Path]
    notes: list[str]


def write_tokenizer_of(
    source: FloatModel | Checkpoint, folder: Path, given: Path | None
) -> WrittenTokenizer:
    """Write the tokenizer.json `given`, or else `source`'s own, to `folder`.

    A tokenizer of an unknown kind is left out, with a note. Raises `InputError` if a file is
    damaged.
    """
    if given is not None:
        begin, end = source.params.get("bos_idx"), token_ids(source.params.get("eos_idx"))
        files = copy_tokenizer_files(given, folder, begin, end)
        notes = [*_notes(files, source.config.vocab_size), *_of_source(given)]
        return WrittenTokenizer(files, notes)
    try:
        files = source.write_tokenizer(folder)
    except UnknownTokenizer as error:
        return WrittenTokenizer([], [f"The checkpoint has no tokenizer: {error}."])
    if not files:
        return WrittenTokenizer([], [])
    own = tokenizer_in(source.source) if source.source.is_dir() else None
    return WrittenTokenizer(files, [*_notes(files, source.config.vocab_size), *_of_source(own)])


def _notes(files: list[Path], vocab_size: int) -> list[str]:
    config = read_object(files[1])
    return [
        *_tokens_without_rows(files, vocab_size),
        *_begin_and_end_tokens(files, vocab_size),
        *_differences_in_executorch(files[0]),
        *_spaces_between_parts(config),
        *_split_special_tokens(config),
    ]


def _tokens_without_rows(files: list[Path], vocab_size: int) -> list[str]:
    """A note if the tokenizer has tokens for which the embedding has no row."""
    vocabulary = tokenizers.Tokenizer.from_buffer(files[0].read_bytes()).get_vocab()
    beyond = sorted((index, token) for token, index in vocabulary.items() if index >= vocab_size)
    if not beyond:
        return []
    named = and_more([f"{token!r} ({index})" for index, token in beyond])
    return [
        "The tokenizer has tokens for which the embedding has no row (the model's ids end at "
        f"{vocab_size - 1}): {named}. A prompt with one is refused; a calibration text is read "
        "without them. If prompts need them, quantize the model whose embedding was resized for "
        "this tokenizer."
    ]


def _begin_and_end_tokens(files: list[Path], vocab_size: int) -> list[str]:
    """Notes if the model can output none of the tokens that end a text, or has no row for the token
    that begins one."""
    stated = {k: value for file in files[1:] for k, value in read_object(file).items()}
    ends, begins = (token_ids(stated.get(f"{name}_token_id")) for name in ("eos", "bos"))
    last, remedy = vocab_size - 1, "in the model's generation_config.json or config.json"
    notes = []
    if not ends:
        notes.append(
            "No file has a token that ends a text, so the model generates until it is cut off. "
            f"If it was trained with such a token, set eos_token_id {remedy}."
        )
    elif min(ends) > last:
        notes.append(
            f"eos_token_id is {', '.join(map(str, ends))}, but the model's ids end at {last}, so "
            f"it generates until it is cut off. Correct eos_token_id {remedy}."
        )
    if begins and begins[0] > last:
        notes.append(
            f"bos_token_id is {begins[0]}, but the model's ids end at {last}: an app that puts it "
            f"before a text reads beyond the embedding. Correct bos_token_id {remedy}."
        )
    return notes


def _of_source(own: Path | None) -> list[str]:
    """Notes that the source's own file gives, not what is written of it."""
    return [*_space_after_special(own), *_words_of_mistral(own)]


def _words_of_mistral(own: Path | None) -> list[str]:
    """A note if the file has a pattern of words that transformers warns of."""
    if own is None or not has_wrong_mistral_words(own, read_config_of(own)[0]):
        return []
    return [
        "This tokenizer.json of a Mistral does not split text as the model was trained (Tekken), "
        "which transformers warns of too: give the model's tekken.json as --tokenizer, or set "
        "fix_mistral_regex to true in its tokenizer_config.json."
    ]


def _space_after_special(own: Path | None) -> list[str]:
    """A note if the token ids of a chat differ from those of transformers."""
    if own is None or not adds_space_after_special_tokens(own):
        return []
    return [
        "Text after a special token gets a space here and on a phone, as in SentencePiece and in "
        "transformers' `legacy`; transformers 5 adds none, so its token ids of a chat may differ."
    ]


def _split_special_tokens(config: dict[str, Any]) -> list[str]:
    """A note if special tokens written in a text are plain text."""
    if config.get("split_special_tokens") is not True:
        return []
    return [
        "Special tokens that are written in a text are plain text here and in transformers "
        "(split_special_tokens in tokenizer_config.json), but special tokens for ExecuTorch's "
        "tokenizer in an app."
    ]


def _spaces_between_parts(config: dict[str, Any]) -> list[str]:
    """A note if a phone adds spaces between the parts of a chat and this tokenizer does not."""
    stated = stated_metaspace(config)
    if stated is None or stated["prepend_scheme"] != "first":
        return []
    return [
        "ExecuTorch's tokenizer in an app puts a space before the text after each special token, "
        "as SentencePiece does; Quatrain and transformers put one only at the start of the text."
    ]


def _differences_in_executorch(tokenizer: Path) -> list[str]:
    """Notes on what ExecuTorch's tokenizer does differently."""
    unread, taking = unsupported_part(tokenizer), tokens_that_strip_spaces(tokenizer)
    if unread is not None:
        return [
            f"ExecuTorch's tokenizer in an app cannot read this tokenizer.json ({unread}), which "
            "works here. For a phone give another file of the same tokenizer as --tokenizer, "
            "such as the model's tokenizer.model."
        ]
    notes = []
    if lost := lost_with_unknown_character(tokenizer):
        notes.append(
            "This tokenizer has tokens only for the characters of its training text, not for all "
            f"bytes: at another character, ExecuTorch's tokenizer in an app drops {lost}. Remove "
            "such characters from prompts there."
        )
    if taking:
        notes.append(
            f"White space beside {and_more(taking)} belongs to that token here, but stays in the "
            "text for ExecuTorch's tokenizer in an app: leave it out of the prompts there."
        )
    if prepared := normalized_tokens(tokenizer):
        notes.append(
            f"This tokenizer looks for {and_more(prepared)} after a space is put before the "
            "text, as transformers does, and so finds it only at the beginning of a word; "
            'ExecuTorch\'s tokenizer in an app finds it anywhere. With "normalized": false in '
            "the source's tokenizer.json both find it anywhere."
        )
    return notes
