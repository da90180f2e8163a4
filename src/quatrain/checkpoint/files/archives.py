"""Detects archives by their content; the model is inside them."""

import zipfile
from contextlib import suppress
from pathlib import Path

from quatrain.folder_entries import entries

_STARTS = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"7z\xbc\xaf": "7z",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"Rar!": "RAR",
    b"\x04\x22\x4d\x18": "lz4",
}
_ZIP = b"PK\x03\x04"


def archive_of(path: Path, start: bytes) -> str | None:
    """What kind of archive the file `path` is, which begins with `start`; None if it is none, or
    one of PyTorch's, which is a zip of a pickle and its tensors."""
    if start.startswith(_ZIP):
        return None if _may_be_pickled(path) else "zip"
    kind = next((kind for begins, kind in _STARTS.items() if start.startswith(begins)), None)
    return kind or ("tar" if _is_tar(path) else None)


def archive_in(folder: Path) -> Path | None:
    """The first archive that lies in `folder`, or None. Formats of other programs may be a zip."""
    for file in entries(folder):
        with suppress(OSError):
            kind = archive_of(file, _start(file)) if file.is_file() else None
            if kind and (kind != "zip" or file.suffix.lower() == ".zip"):
                return file
    return None


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(max(map(len, _STARTS)))


def _is_tar(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(257)
        return file.read(5) == b"ustar"


def _may_be_pickled(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return True  # damaged, which its reader says
