"""Prints the figures of docs/families.md: how far each family is from its model in transformers.

OMP_NUM_THREADS=1 python -m tests.checkpoint.families.measure_families ["Granite 3 dense" ...]
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import transformers
from tests.support.formats.quantized_models import METHODS
from tests.support.models.families import ROWS
from tests.support.models.family_errors import float_error, gguf_error, quantized_error


def main() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    titles = sys.argv[1:]
    for title in titles or dict.fromkeys(row.documented for row in ROWS.values()):
        names = [name for name, row in ROWS.items() if row.documented == title]
        # Of the tests' models that a row stands for, the largest error.
        print(f"| {title} | {max(measured(float_error, name) for name in names):.1e} |", flush=True)
    if titles:
        return
    errors = [measured(gguf_error, name) for name, row in ROWS.items() if row.gguf]
    print(f"GGUF: {min(errors):.1e} to {max(errors):.1e}")
    errors = [
        measured(quantized_error, name, method)
        for name, row in ROWS.items()
        for method in METHODS
        if row.quantized
    ]
    print(f"quantized folders: {min(errors):.1e} to {max(errors):.1e}")


def measured(error: Callable[..., float], *names: str) -> float:
    """`error` of `names` in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return error(*names, Path(folder))


if __name__ == "__main__":
    main()
