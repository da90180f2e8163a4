"""Reads a tokenizer.json."""

from pathlib import Path

import tokenizers
from tokenizers import models

from quatrain.errors import InputError
from quatrain.json_files import what_it_is
from quatrain.quiet import native_output_held_back
from quatrain.stand_ins import refuse_stand_in

_BYTE_ORDER_MARK = "\ufeff"


def read_tokenizer_json(path: Path) -> tuple[tokenizers.Tokenizer, bool]:
    """(the tokenizer in the tokenizer.json `path`, whether it is another than the file says).

    Raises `InputError` if it is damaged.
    """
    with native_output_held_back():  # tokenizers prints where it panics
        text, model = _parsed(path)
    changed = text.startswith(_BYTE_ORDER_MARK)
    changed |= model.padding is not None or model.truncation is not None
    if isinstance(model.model, models.BPE) and model.model.dropout:
        model.model.dropout, changed = None, True  # merges left out by chance, for training
    return model, changed


def _parsed(path: Path) -> tuple[str, tokenizers.Tokenizer]:
    """(the text in `path`, the tokenizer that it is)"""
    try:
        text = path.read_text(encoding="utf-8")
        return text, tokenizers.Tokenizer.from_str(text.removeprefix(_BYTE_ORDER_MARK))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except BaseException as error:
        if not is_tokenizers_error(error):
            raise
        refuse_stand_in(path)
        panics = not isinstance(error, Exception)
        said = "a merge does not join two tokens into a third" if panics else error
        raise InputError(f"{path}: is not a tokenizer.json: {said}{what_it_is(path)}") from error


def is_tokenizers_error(error: BaseException) -> bool:
    """It raises bare Exception, and what is broken in it derives from BaseException."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
