"""Text to tokens and back: load a tokenizer, find and copy its files, know what ends a text.

Imports nothing of `checkpoint`, which writes the files that these read.
"""

from quatrain.tokenizer.end_tokens import end_ids
from quatrain.tokenizer.files import beside, copy_tokenizer_files, find_tokenizer
from quatrain.tokenizer.load import TextStream, Tokenizer

__all__ = [
    "TextStream",
    "Tokenizer",
    "beside",
    "copy_tokenizer_files",
    "end_ids",
    "find_tokenizer",
]
