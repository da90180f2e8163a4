"""A program's file as memory, or the reason why it is not a program."""

import mmap
from pathlib import Path

from quatrain.atomic_files import is_device_or_pipe
from quatrain.errors import InputError


def map_program(path: Path) -> mmap.mmap:
    """The bytes of the file. Raises `InputError` if it cannot be read, is empty, or is a file of a
    model."""
    if is_device_or_pipe(path):
        raise InputError(
            f"{path}: is a device or a pipe, and programs are memory-mapped; write it to a file, "
            "and give that"
        )
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise InputError(f"{path}: is empty, expected a .pte program") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}{_instead_of(path)}") from error
    if kind := _kind_of_model(mapped[:9]):
        raise InputError(
            f"{path}: is {kind}, expected a program; `quatrain quantize MODEL -o CHECKPOINT`, then "
            "`quatrain export CHECKPOINT -o MODEL.pte` make one"
        )
    return mapped


def _kind_of_model(start: bytes) -> str | None:
    """What a file that begins so is, where it may be given for the program of a model."""
    if start[:4] == b"GGUF":
        return "a GGUF file"
    if start[:4] == b"PK\x03\x04":
        return "a .pth file"
    return "a safetensors file" if start[8:] == b"{" else None


def _instead_of(path: Path) -> str:
    """What to give in place of a `path` that cannot be read."""
    if str(path) == "-" and not path.exists():
        return "; the standard input cannot be memory-mapped: write it to a file, and give that"
    return (
        "; give a program, such as `quatrain export CHECKPOINT -o MODEL.pte` makes"
        if path.is_dir()
        else ""
    )
