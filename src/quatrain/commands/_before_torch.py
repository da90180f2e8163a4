"""Checks that commands make before they import torch: what they could not read or write."""

import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from quatrain.atomic_files import require_name
from quatrain.checkpoint.open import is_program
from quatrain.commands.printing.progress import said_where_slow
from quatrain.errors import InputError

if TYPE_CHECKING:
    from quatrain.stages import Stages

# What files of a model's folder end in.
_OF_A_MODEL = frozenset(
    (".safetensors", ".pth", ".pt", ".ckpt", ".bin", ".gguf", ".json", ".jinja", ".model", ".txt")
)


def check_output(path: Path, option: str, *inputs: Path | None) -> None:
    """Refuse, before any work, a file that could not be written after it, and one that would take
    the place of one of `inputs`, or of what a folder of them holds of its model."""
    require_name(path, f"{option} {path}")
    if path.is_dir():
        raise InputError(f"{option} {path}: is a folder, expected the name of a file to write")
    if not path.parent.is_dir():
        raise InputError(f"{option} {path}: cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise InputError(
            f"{option} {path}: cannot be written: the folder {path.parent.resolve()} is read-only; "
            "choose another place"
        )
    for read in inputs:
        if read is not None and _takes_its_place(path, read):
            raise InputError(
                f"{option} {path}: would overwrite the input {read}; give another name"
            )


def _takes_its_place(path: Path, read: Path) -> bool:
    if not (path.exists() and read.exists()):
        return False
    if read.is_dir():
        return path.suffix in _OF_A_MODEL and path.parent.samefile(read)
    from quatrain.tokenizer.files import CONFIG, TOKENIZER, beside

    own = [beside(read, name).name for name in (TOKENIZER, CONFIG)]
    named = {"params.json", TOKENIZER, CONFIG, *own}
    return path.samefile(read) or (path.parent.samefile(read.parent) and path.name in named)


def check_program(model: Path) -> None:
    """Refuse, before torch is imported, a program that cannot be read."""
    from quatrain.program.file.mapped_file import map_program

    map_program(model)


def leave_cores_to_executorch(models: Iterable[Path]) -> None:
    """Have torch and MKL use one OpenMP thread where ExecuTorch's runtime computes all of `models`:
    theirs, in the attention, wait on the cores that its own threads compute on. Not for `verify`
    and `evaluate`, which compute in torch for longer than in the program.

    Before torch is imported, which reads the variable once. What the user set stays.
    """
    from quatrain.program import open_program

    if not any(open_program(model).graphs for model in models):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def import_torch() -> None:
    """Import torch, and report it if it takes seconds, because the command prints nothing else
    meanwhile."""
    if "torch" not in sys.modules:
        with said_where_slow("import torch"):
            import torch  # noqa: F401


def check_tokenizer(tokenizer: Path | None) -> None:
    """Refuse, before torch is imported, a --tokenizer that cannot be opened."""
    if tokenizer is not None:
        from quatrain.tokenizer.files import require_tokenizer

        require_tokenizer(tokenizer)


def check_model(model: Path) -> None:
    """Refuse, before torch is imported, what is neither a program nor a checkpoint."""
    if is_program(model):
        check_program(model)


def is_smollm2(model: Path | str | None) -> bool:
    """Whether `model` is the word for SmolLM2, and not a file or folder of that name."""
    return str(model) == "smollm2" and not Path("smollm2").exists()


def fetched_smollm2(stages: "Stages") -> str:
    """The file of the model smollm2."""
    from quatrain.smollm2 import fetch_smollm2

    with stages("fetch SmolLM2"):
        return str(fetch_smollm2())


def refuse_smollm2(model: Path | str, action: str) -> None:
    """Refuse the word smollm2, which only some commands accept for a model; `action` is what this
    command does with the model, as part of the remedy."""
    if is_smollm2(model):
        raise InputError(
            "smollm2: no such file or folder; only `quantize`, `evaluate` and `release` accept "
            "this word for the demo's model; run `quatrain quantize smollm2 -o "
            f"smollm2-int4` and {action} smollm2-int4"
        )
