"""Tokenizers: loading them, finding and copying their files, and the tokens that end a text.

Imports nothing of `checkpoint`, which writes the files that these read.
"""

from quatrain.tokenizer.copies import copy_tokenizer_files
from quatrain.tokenizer.end_tokens import end_ids
from quatrain.tokenizer.files import beside, chosen_tokenizer, find_tokenizer
from quatrain.tokenizer.load import TextStream, Tokenizer

__all__ = [
    "TextStream",
    "Tokenizer",
    "beside",
    "chosen_tokenizer",
    "copy_tokenizer_files",
    "end_ids",
    "find_tokenizer",
]
