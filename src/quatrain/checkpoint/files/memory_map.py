"""Memory-mapped files that release their pages.

Every page of a mapping that was read counts as memory of the process until it is released, although
the system could reclaim it: for a checkpoint that adds up to all weights.
"""

import mmap
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_AT_MOST = 128 << 20  # bytes read between two releases

_releasing = False
_released: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
_read = 0


def map_file(path: Path) -> mmap.mmap:
    """The whole of a file; what is written to the memory does not reach it.

    Raises OSError or ValueError if there is nothing to map.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    if _releasing:
        _released.add(mapped)
    return mapped


@contextmanager
def only_read() -> Iterator[None]:
    """Files mapped inside this context are only read, so their pages may be released at any
    time."""
    global _releasing
    before, _releasing = _releasing, True
    try:
        yield
    finally:
        _releasing = before


def was_read(nbytes: int) -> None:
    """Report that `nbytes` of mapped tensors have been read and are not needed for now.

    Once that adds up to 128 MiB, the pages of all files mapped in `only_read` are released.
    """
    global _read
    _read += nbytes
    if _read >= _AT_MOST:
        release_mapped()


def release_mapped() -> None:
    """Release the pages of all files mapped in `only_read`. Tensors in them stay valid: their pages
    are read again when needed."""
    global _read
    _read = 0
    if hasattr(mmap, "MADV_DONTNEED"):
        for mapped in list(_released):
            mapped.madvise(mmap.MADV_DONTNEED)
