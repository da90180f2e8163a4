"""Git LFS pointers: three lines of text in place of a large file."""

from pathlib import Path

from quatrain.errors import InputError

_START = b"version https://git-lfs.github.com/spec/"


def refuse_lfs_pointer(path: Path) -> None:
    """Raise `InputError` if the file `path` is a pointer; one that cannot be read is not."""
    try:
        with path.open("rb") as file:
            start = file.read(len(_START))
    except OSError:
        return  # said by what opens it
    if start == _START:
        raise InputError(
            f"{path}: is a Git LFS pointer, which stands for a file that was not fetched; run "
            f"`git lfs install` and `git lfs pull` in {path.parent}, or download the file itself"
        )
