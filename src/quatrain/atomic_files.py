"""Outputs that are written completely or not at all, and the cache folder."""

import glob
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from quatrain.errors import InputError, remedy_for

_BEING_MADE = 10  # seconds in which a folder beside an output may not be locked yet

# Of each file that is not whole yet: what it is to be, and what to choose where that fails.
_becoming: dict[Path, tuple[Path, str]] = {}


def is_device_or_pipe(path: Path) -> bool:
    """Whether `path` is there, and neither a file nor a folder."""
    return path.exists() and not (path.is_file() or path.is_dir())


def require_name(path: Path, named: str) -> None:
    """Refuse, with `InputError`, what names nothing that an output could replace whole: `-`, and a
    device or a pipe. `named`: `path` as the user gave it."""
    if str(path) == "-":
        raise InputError(
            f"{named}: the output cannot go to standard output; give the name of a file"
        )
    if is_device_or_pipe(path) or path.parent.resolve() == Path("/dev"):
        raise InputError(
            f"{named}: is a device or a pipe, but an output is written completely and then "
            "renamed; give the name of a file"
        )


@contextmanager
def whole_file(path: Path, instead: str = "choose another place") -> Iterator[Path]:
    """Yield an empty file of the name of `path` in a folder beside it; on success flush it and
    rename it to `path`.

    On any exception, also KeyboardInterrupt, it is removed and the previous file at `path` is
    unchanged. Raises `InputError` if the folder cannot be written or the disk is full, with the
    advice `instead`, and as `require_name`.
    """
    path = Path(path)
    require_name(path, str(path))
    # What is written whole within another whole file is that file to the user.
    named, instead = _becoming.get(path, (path, instead))
    with _explained(named, instead), _folder_beside(path) as folder:
        temporary = folder / path.name
        temporary.touch()
        _becoming[temporary] = named, instead
        try:
            yield temporary
            _publish_file(temporary, path)
        finally:
            del _becoming[temporary]


@contextmanager
def whole_folder(path: Path, own: Collection[str] = ()) -> Iterator[Path]:
    """Yield an empty folder; on success `publish_folder` moves what is in it to `path`.

    Raises `InputError` if `path` is a file, its folder cannot be written or the disk is full.
    """
    path = Path(path)
    with _explained(path):
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: is a file, expected a folder to write into")
        path.parent.mkdir(parents=True, exist_ok=True)
        with _folder_beside(path) as folder:
            temporary = folder / "whole"
            temporary.mkdir()
            yield temporary
            publish_folder(temporary, path, own)


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """A locked folder on the same disk as `path`, removed at the end; before, those are that a
    process which was killed has left there."""
    for other in path.parent.glob(f".{glob.escape(path.name)}.{'?' * 8}.tmp"):
        if _is_abandoned(other):
            shutil.rmtree(other, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        with held_folder(folder, f"{folder}: is worked in by another process"):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Whether nobody works in `folder`. Of a disk that knows no locks nothing says so."""
    import fcntl  # Windows has none; there the command line says so, which imports this

    with suppress(OSError):
        if time.time() - folder.stat().st_mtime < _BEING_MADE:
            return False
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        finally:
            os.close(handle)
    return False


def publish_folder(folder: Path, path: Path, own: Collection[str]) -> None:
    """Flush the files in `folder` and move them to `path`, on the same disk.

    A new `path` appears in one rename. In an existing folder each file is replaced by a rename of
    its own; files in `own` that `folder` lacks are removed, and others are not touched. Raises
    OSError.
    """
    for file in folder.iterdir():
        flush_to_disk(file)
    if not path.exists():
        folder.chmod(0o777 & ~_umask())
        folder.rename(path)
        return
    for name in own:
        if not (folder / name).exists():
            (path / name).unlink(missing_ok=True)
    for file in folder.iterdir():
        file.replace(path / file.name)
    folder.rmdir()


@contextmanager
def whole_copies(sources: Mapping[Path, Path]) -> Iterator[None]:
    """Copy each value to its key; the copies appear where the block ends well.

    What the block writes is not there without them: a full disk shows before it.
    """
    with ExitStack() as stack:
        for target, source in sources.items():
            shutil.copyfile(source, stack.enter_context(whole_file(target)))
        yield


def hold(file: int, refusal: str) -> None:
    """Lock the opened `file` or folder until it is closed, however the process ends.

    Raises `InputError` with `refusal` if another process has done so. A disk that knows no locks
    holds nobody up.
    """
    import fcntl  # Windows has none; there the command line says so, which imports this

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(refusal) from None
    except OSError:
        pass


@contextmanager
def held_folder(
    folder: Path,
    refusal: str,
    explained: Callable[[Path], AbstractContextManager[None]] = nullcontext,
) -> Iterator[None]:
    """Work in `folder`, which is made, as no other process does meanwhile.

    The lock is on the folder itself, which may be moved or removed in the block, and ends with the
    process, however that ends. Raises `InputError` as `hold`, and if the folder cannot be made what
    `explained`, given the folder, makes of the `OSError`.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    try:
        hold(handle, refusal)
        yield
    finally:
        os.close(handle)


def take_room(file: BinaryIO, size: int) -> None:
    """Have `file` take all its room of `size` bytes at once: once it is mapped into memory, a full
    disk is fatal, and here it is an OSError."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        os.posix_fallocate(file.fileno(), 0, size)


def cache_folder() -> Path:
    """Where what can be made again is kept: $QUATRAIN_CACHE, or quatrain/ in $XDG_CACHE_HOME or
    ~/.cache. It may not exist yet. Raises `InputError` if nothing says which folder that is."""
    if os.environ.get("QUATRAIN_CACHE"):
        return Path(os.environ["QUATRAIN_CACHE"])
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:  # a user without a name, as in some containers
        raise InputError(
            "the cache: neither $HOME nor the system names a home folder; set QUATRAIN_CACHE to a "
            "folder for it"
        ) from error
    return Path(base) / "quatrain"


def _publish_file(temporary: Path, path: Path) -> None:
    flush_to_disk(temporary)
    temporary.chmod(0o666 & ~_umask())
    temporary.replace(path)


def flush_to_disk(file: Path) -> None:
    """Return once what was written to `file` would outlast a loss of power."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


def _umask() -> int:
    # There is no call that reads it without setting it.
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def _explained(path: Path, instead: str = "choose another place") -> Iterator[None]:
    """Turn an operating system error about an output into one that names it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if not path.parent.is_dir():
            reason += f" (there is no folder {path.parent})"
        remedy = remedy_for(error, instead)
        raise InputError(
            f"{path}: cannot be written: {reason}. Nothing was changed; {remedy}."
        ) from error
