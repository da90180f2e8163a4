"""Outputs that are whole or absent, and the folder for what is kept between runs."""

import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from quatrain.errors import InputError

# Of each temporary sibling of a file: what it is to be, and what to choose where that fails.
_becoming: dict[Path, tuple[Path, str]] = {}


def is_device_or_pipe(path: Path) -> bool:
    """Whether `path` is there, and neither a file nor a folder."""
    return path.exists() and not (path.is_file() or path.is_dir())


def require_name(path: Path, named: str) -> None:
    """Refuse, with `InputError`, what names nothing that an output could replace whole: `-`, and a
    device or a pipe. `named`: `path` as the user gave it."""
    if str(path) == "-":
        raise InputError(
            f"{named}: no output goes to the standard output; give the name of what to write"
        )
    if is_device_or_pipe(path) or path.parent.resolve() == Path("/dev"):
        raise InputError(
            f"{named}: is a device or a pipe, and an output appears whole, in place of what was "
            "there; give the name of a file"
        )


@contextmanager
def whole_file(path: Path, instead: str = "choose another place") -> Iterator[Path]:
    """Yield a temporary sibling of `path`; on success flush it and rename it to `path`.

    On any exception, KeyboardInterrupt included, the sibling is removed and what stood at
    `path` before is left as it was. Raises `InputError` where the folder cannot be written
    or the disk is full, which advises to do something `instead`, and as `require_name`.
    """
    path = Path(path)
    require_name(path, str(path))
    # What is written whole within another whole file is that file to the user.
    named, instead = _becoming.get(path, (path, instead))
    with _explained(named, instead):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
    temporary = Path(name)
    _becoming[temporary] = named, instead
    try:
        with _explained(named, instead):
            yield temporary
            _publish_file(temporary, path)
    finally:
        del _becoming[temporary]
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, own: Collection[str] = ()) -> Iterator[Path]:
    """Yield a temporary sibling folder of `path`; on success `publish_folder` moves it there.

    Raises `InputError` where `path` is a file, its folder cannot be written or the disk is full.
    """
    path = Path(path)
    with _explained(path):
        if path.exists() and not path.is_dir():
            raise InputError(f"{path}: is a file, expected a folder to write into")
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
    try:
        with _explained(path):
            yield temporary
            publish_folder(temporary, path, own)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish_folder(folder: Path, path: Path, own: Collection[str]) -> None:
    """Flush the files in `folder` and move them to `path`, on the same disk.

    A new `path` appears in one rename. In an existing folder each file is replaced by a rename of
    its own; those of the names `own` that `folder` lacks are removed, and others are left alone.
    Raises OSError.
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

    Raises `InputError` with `refusal` where another process has done so. A disk that knows no locks
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
def held_folder(folder: Path, refusal: str) -> Iterator[None]:
    """Work in `folder`, which is made, as no other process does meanwhile.

    The lock is on the folder itself, which may be moved or removed in the block, and ends with the
    process, however that ends. Raises `InputError` as `hold`, and `OSError` where the folder cannot
    be made.
    """
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
    ~/.cache. It may not exist yet. Raises `InputError` where nothing says which folder that is."""
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
    # There is no call that only reads it.
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
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = f"free some space, or {instead}" if full else instead
        raise InputError(
            f"{path}: cannot be written: {reason}. Nothing was changed; {advice}."
        ) from error
