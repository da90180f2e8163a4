"""The entries of a folder, without those that do not belong to the model."""

from pathlib import Path

from quatrain.errors import InputError

# Of a link to one of these a folder that is read would lack what the model is; links to tensors are
# followed where they are read.
_TEXTS = (".json", ".jinja", ".model")
_MERGES = "merges.txt"


def entries(folder: Path, pattern: str = "*") -> list[Path]:
    """The entries of `folder` that match `pattern`, in order, except `._NAME`, which macOS writes
    beside each file in an archive or on another system's disk."""
    return sorted(file for file in folder.glob(pattern) if not file.name.startswith("._"))


def refuse_broken_links(folder: Path) -> None:
    """Raise `InputError` for a dangling link in `folder` to a text file that describes a model or
    its tokenizer, as in a snapshot of the hub's cache without its blobs."""
    for file in entries(folder):
        if file.suffix in _TEXTS or file.name == _MERGES:
            refuse_broken_link(file)


def refuse_broken_link(file: Path) -> None:
    """Raise `InputError` if `file` is a link, and what it leads to is not there."""
    try:
        is_broken = file.is_symlink() and not file.exists()
    except (OSError, ValueError):
        return  # its name is none that a file can have
    if is_broken:
        raise InputError(
            f"{file}: is a link to {str(file.readlink())!r}, which does not exist; copy the model "
            "with the files that its links lead to (`cp -rL`), or download it again"
        )
