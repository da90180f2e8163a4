"""Detects pieces of a large file (NAME.gguf.part1of2, NAME.gguf-split-a and so on), which must be
concatenated first."""

import re
from pathlib import Path

from quatrain.errors import shell_word
from quatrain.folder_entries import entries

_PIECE = re.compile(r"(.+\.gguf)[.-](?:part|split)[-_.]?(?:\d+|[a-z]{1,2})(?:[-_.]?of[-_.]?\d+)?")


def how_to_join(piece: Path) -> str | None:
    """What makes one file of `piece` and those beside it; None if its name is not a piece's."""
    whole = _whole_file_of(piece)
    if whole is None:
        return None
    beside = [file for file in entries(piece.parent) if _whole_file_of(file) == whole]
    in_order = sorted(beside, key=lambda file: (len(file.name), file.name))
    files = " ".join(shell_word(file) for file in in_order)
    return (
        f"It is a piece of {whole.name}: once all its pieces are in this folder, join them in "
        f"order (`cat {files} > {shell_word(whole)}`) and give that file."
    )


def _whole_file_of(piece: Path) -> Path | None:
    match = _PIECE.fullmatch(piece.name)
    return piece.with_name(match[1]) if match else None
