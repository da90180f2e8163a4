"""What a download may leave in place of a file: a Git LFS pointer, three lines of text, or the web
page that shows the file, or that asks for permission."""

from pathlib import Path

from quatrain.errors import InputError

_POINTER = b"version https://git-lfs.github.com/spec/"
_PAGES = (b"<!doctype html", b"<html")


def refuse_stand_in(path: Path) -> None:
    """Raise `InputError` if the file `path` is such; one that cannot be read is not."""
    try:
        with path.open("rb") as file:
            start = file.read(100)
    except OSError:
        return  # said by what opens it
    if start.startswith(_POINTER):
        raise InputError(
            f"{path}: is a Git LFS pointer, which stands for a file that was not fetched; run "
            f"`git lfs install` and `git lfs pull` in {path.parent}, or download the file itself"
        )
    if start.lstrip().lower().startswith(_PAGES):
        raise InputError(
            f"{path}: is a web page in place of the file; download the file itself (on the "
            "Hugging Face hub its address has /resolve/ in place of /blob/, and some models need "
            "your consent to their licence first)"
        )
