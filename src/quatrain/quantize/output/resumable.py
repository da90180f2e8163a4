"""A folder with a large file written in steps, which an interruption does not undo."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from quatrain.atomic_files import held_folder, publish_folder
from quatrain.errors import InputError

_BYTES_BETWEEN_NOTES = 64 << 20


@contextmanager
def resumable_folder(output: Path, own: Collection[str]) -> Iterator[Path]:
    """Yield the folder in which `output` is made; on success `publish_folder` moves it there.

    Where the block is left by an interruption or a full disk the folder stays, for another attempt
    to go on with; by an `InputError` it goes: the same again would fail the same way. Raises
    `InputError` if something cannot be written.
    """
    folder = working_folder(output)
    with held_alone(output, folder), kept_folder(output, folder):
        yield folder
        publish_folder(folder, Path(os.path.realpath(output)), own)


@contextmanager
def kept_folder(output: Path, folder: Path) -> Iterator[Path]:
    """Yield `folder`, where something is made for `output`. It stays if the block is left by an
    interruption or a full disk, and is removed if by an `InputError`.

    Raises `InputError` if something cannot be written.
    """
    with _explained(output):
        try:
            yield folder
        except InputError:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def held_alone(output: Path, folder: Path) -> AbstractContextManager[None]:
    """Work in `folder`, where something is made for `output`, as no other process does meanwhile.

    Raises `InputError` if one does, or the folder cannot be made.
    """
    refusal = (
        f"{output}: another process is writing this folder; wait until it ends, or name another "
        "folder"
    )
    return held_folder(folder, refusal, lambda _: _explained(output))


@contextmanager
def _explained(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = (
            "Free some space and run the command again, which resumes the work, or choose "
            "another folder."
            if full
            else "Choose another folder."
        )
        raise InputError(
            f"{output}: cannot be written: {error.strerror or error}. {advice}"
        ) from error


class ResumableFile:
    """Appends to the file `path`, and records its progress in progress.json beside it.

    `key` identifies everything that the content depends on: bytes written under another key, or
    that do not match the record, are discarded. Progress is recorded only when the bytes before it
    are on the disk. `done` steps are completely in the file; `carried` is what the caller recorded
    with them.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self._note = path.with_name("progress.json")
        self._key = key
        self.done = 0
        self.carried: dict[str, Any] = {}
        self._unnoted = 0
        self._digest = hashlib.sha256()
        self._whole = self._digest.copy()  # of the steps that are done
        size = self._resume()
        self._size = size
        self._file = self.path.open("r+b" if size else "wb")
        self._file.truncate(size)
        self._file.seek(size)

    def append(self, chunks: Iterable[Any], carried: dict[str, Any]) -> None:
        """Write one step's bytes; `carried` is kept with the note that comes after it."""
        for chunk in chunks:
            self._file.write(chunk)
            self._digest.update(chunk)
            self._unnoted += memoryview(chunk).nbytes
        self.done += 1
        self._size, self._whole = self._file.tell(), self._digest.copy()
        if self._unnoted >= _BYTES_BETWEEN_NOTES:
            self._take_note(carried)

    def finish(self) -> tuple[str, int]:
        """Close the file and remove the note; returns the file's SHA-256 and size in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._note.unlink(missing_ok=True)
        return self._whole.hexdigest(), self._size

    def leave(self, carried: dict[str, Any]) -> None:
        """Close the file, so that another time goes on from the last step that is done."""
        with suppress(OSError):  # a full disk, which is why it is left
            self._take_note(carried)
        with suppress(OSError):
            self._file.close()

    def _take_note(self, carried: dict[str, Any]) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        note = {
            "key": self._key,
            "done": self.done,
            "bytes": self._size,
            "sha256": self._whole.hexdigest(),
            "carried": carried,
        }
        temporary = self._note.with_suffix(".tmp")
        temporary.write_text(json.dumps(note))
        temporary.replace(self._note)
        self._unnoted = 0

    def _resume(self) -> int:
        """The number of bytes of an earlier attempt that can be kept."""
        try:
            note = json.loads(self._note.read_text())
            if note["key"] != self._key:
                return 0
            digest = sha256_of(self.path, note["bytes"])
            if digest.hexdigest() != note["sha256"]:
                return 0
            self._digest, self._whole = digest, digest.copy()
            self.done, self.carried = note["done"], note["carried"]
            return note["bytes"]
        except (OSError, ValueError, KeyError, TypeError):
            return 0


def sha256_of(path: Path, length: int | None = None) -> "hashlib._Hash":
    """The running digest of the first `length` bytes of `path`, or of all."""
    digest = hashlib.sha256()
    left = path.stat().st_size if length is None else length
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(left, 1 << 20))):
            digest.update(chunk)
            left -= len(chunk)
    return digest


def working_folder(output: Path) -> Path:
    """The folder beside `output` in which an unfinished conversion waits; it may not exist."""
    output = Path(os.path.realpath(output))
    return output.parent / f".{output.name}.converting"
