"""The files of a GGUF model that `llama-gguf-split` has split, found by their names."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quatrain.errors import InputError
from quatrain.folder_entries import refuse_broken_link

_PART = re.compile(r"(.+)-\d{5}-of-(\d{5})\.gguf")


def part_files(path: Path) -> list[Path]:
    """The files of `path`: only itself, or all parts of a split model in order.

    Raises `InputError` if a part is missing.
    """
    match = _PART.fullmatch(path.name)
    if not match or int(match[2]) < 2:
        return [path]
    files = []
    for number in range(1, int(match[2]) + 1):
        files.append(path.with_name(f"{match[1]}-{number:05}-of-{match[2]}.gguf"))
        if not files[-1].is_file():
            refuse_broken_link(files[-1])
            raise InputError(
                f"{path}: is part of a split model, but {files[-1].name} is not beside it; "
                "download it"
            )
    return files


def check_place(path: Path, metadata: Mapping[str, Any], number: int, count: int) -> None:
    """Raise `InputError` if the file `path`, by its name the part `number` (from 0) of `count`,
    says in its `metadata` that it is another."""
    stated = (metadata.get(f"split.{key}") for key in ("no", "count"))
    own, of = (value if isinstance(value, int) else None for value in stated)
    if own not in (None, number) or ((of or 0) > 1 and of != count):
        place = f"part {(own or 0) + 1}" + (f" of {of}" if of else "")
        raise InputError(
            f"{path}: is {place} of a split model, whose parts are found by their names (such as "
            "NAME-00001-of-00002.gguf); rename them, and give the first one"
        )
