"""The files of a GGUF model that `llama-gguf-split` has split, found by their names."""

import re
from pathlib import Path

from quatrain.errors import InputError

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
            raise InputError(
                f"{path}: is part of a split model, but {files[-1].name} is not beside it; "
                "download it"
            )
    return files
