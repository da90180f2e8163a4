"""Which format a file is in, told from its content: names lie."""

from pathlib import Path

from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.files.pth import read_pth
from quatrain.checkpoint.files.safetensors import read_safetensors
from quatrain.errors import InputError


def format_of(path: Path) -> str:
    """'gguf', 'pth' or 'safetensors'. Raises `InputError` for a file that is none of them."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if start[:4] == b"GGUF":
        return "gguf"
    if start[:4] == b"PK\x03\x04":
        return "pth"
    if start[8:] == b"{":  # after the header's length, which may be any eight bytes
        return "safetensors"
    if start[:1] == b"\x80":
        raise InputError(
            f"{path}: is a bare pickle (PyTorch's format before 1.6, or another program's), which "
            "is not read; save it again with torch.save(state_dict, path) in a current PyTorch"
        )
    raise InputError(
        f"{path}: is neither a .safetensors, a .pth nor a GGUF file (it starts with {start!r}); "
        "it may be cut short or of another format"
    )


def read_tensors(path: Path) -> LazyTensors:
    """The tensors of a `.safetensors` or `.pth` file, memory-mapped."""
    kind = format_of(path)
    if kind == "gguf":
        raise InputError(
            f"{path}: is a GGUF model, expected a checkpoint; "
            f"run `quatrain quantize {path} -o DIR` first"
        )
    return read_pth(path) if kind == "pth" else read_safetensors(path)


def only_file(folder: Path, suffixes: tuple[str, ...], preferred: str = "") -> Path:
    """The one file in `folder` with one of `suffixes`, or the one called `preferred`.

    Raises `InputError` where there is none, or several.
    """
    if preferred and (folder / preferred).is_file():
        return folder / preferred
    found = sorted(file for file in folder.iterdir() if file.suffix in suffixes and file.is_file())
    if len(found) == 1:
        return found[0]
    names = ", ".join(file.name for file in found) or "none"
    raise InputError(
        f"{folder}: expected one {' or '.join(suffixes)} file, found {names}; "
        "name the file itself, or merge the parts of a sharded model first"
    )
