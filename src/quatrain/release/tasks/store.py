"""Caches the tasks of a release under a key of what they depend on.

    .work/KIND-KEY/result.json   {"files": {NAME: SHA-256}, "result": what the task says}
    .work/KIND-KEY/NAME          the files of the result
    .work/lock                   held by the process that works there
    .work/digests.json           SHA-256 of files by path, size and time: they are read once

result.json is written last, by a rename: a task without it does not count, whenever the work was
stopped.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import quatrain
from quatrain.atomic_files import hold, whole_file
from quatrain.errors import InputError, remedy_for
from quatrain.json_files import write_json
from quatrain.quantize.output.resumable import sha256_of

MANIFEST, WORK = "manifest.json", ".work"  # in the folder of a release
RESULT = "result.json"
PROGRAM = "model.pte"  # of an exported task
MADE_WITH = ("quatrain", "executorch", "torch", "torchao", "tokenizers")


def versions() -> dict[str, str]:
    """Of what decides on the bytes of a release."""
    return {name: version(name) for name in MADE_WITH}


@cache
def code_digest() -> str:
    """SHA-256 of Quatrain itself: between two releases the version says nothing of what a task
    does, nor by which names its result has what it says."""
    package, digest = Path(quatrain.__file__).parent, hashlib.sha256()
    for file in sorted(package.rglob("*")):
        if file.is_file() and file.suffix != ".pyc":
            digest.update(f"{file.relative_to(package)}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Task:
    """Something to be made.

    Attributes:
        kind: What it is, such as "export": the name of one of `functions.FUNCTIONS`.
        title: The same for people.
        follows_from: Everything that determines the result, as plain data: digests of files, not
            their paths.
        arguments: The arguments of the function, in addition to the folder to write to.
        advances: Whether it also takes `advance`, and calls it with the completed fraction.
    """

    kind: str
    title: str
    follows_from: dict[str, Any]
    arguments: dict[str, Any]
    advances: bool = False

    @property
    def key(self) -> str:
        """A key of everything that determines the result."""
        made_by = versions() | {"quatrain": code_digest()}
        said = json.dumps([made_by, self.kind, self.follows_from], sort_keys=True, default=str)
        return f"{self.kind}-{hashlib.sha256(said.encode()).hexdigest()[:20]}"


@dataclass(frozen=True)
class Made:
    """A task that is made: its `folder`, the SHA-256 of each of its `files`, and its `result`."""

    folder: Path
    files: dict[str, str]
    result: dict[str, Any]


def make(
    folder: Path,
    task: Task,
    function: Callable[..., dict[str, Any]],
    advance: Callable[[float], None] = lambda fraction: None,
) -> None:
    """Make `task` in `folder`: `function` writes its files there and gives its result. `advance` is
    called with the completed fraction, for a task that reports it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    told = {"advance": advance} if task.advances else {}
    result = function(folder, **task.arguments, **told)
    files = {file.name: sha256_of(file).hexdigest() for file in sorted(folder.iterdir())}
    with whole_file(folder / RESULT) as temporary:
        write_json(temporary, {"files": files, "result": result})


@contextmanager
def held_alone(folder: Path) -> Iterator[None]:
    """Work in the folder .work as no other process does meanwhile.

    Raises `InputError` if one does, or the folder cannot be written. The lock ends with the
    process, however that ends.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise InputError(
            f"-o {folder.parent}: cannot be written: {error.strerror}; {remedy_for(error)}"
        ) from error
    with lock:
        hold(
            lock.fileno(),
            f"-o {folder.parent}: another release is being written there; wait until it ends, or "
            "name another folder",
        )
        yield


class Store:
    """The tasks in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._digests_file = folder / "digests.json"
        self._digests = _read(self._digests_file)

    def place(self, task: Task) -> Path:
        """The folder that `task` is made in."""
        return self.folder / task.key

    def find(self, task: Task) -> Made | None:
        """The result of `task` if it is made and its files are unchanged; else None."""
        folder = self.place(task)
        said = _read(folder / RESULT)
        if not said.keys() >= {"files", "result"}:
            return None
        for name, digest in said["files"].items():
            if not (folder / name).is_file() or self.digest(folder / name) != digest:
                shutil.rmtree(folder)
                return None
        return Made(folder, said["files"], said["result"])

    def digest(self, file: Path) -> str:
        """The SHA-256 of `file`, read again where its size or time is another."""
        status = file.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        kept = self._digests.get(str(file))
        if kept is None or kept[:2] != stamp:
            self._digests[str(file)] = kept = [*stamp, sha256_of(file).hexdigest()]
        return kept[2]

    def keep_digests(self) -> None:
        """Remember them for another time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self._digests_file) as temporary:
            write_json(temporary, self._digests)

    def keep_only(self, tasks: Iterable[Task]) -> None:
        """Remove every other task."""
        kept = {task.key for task in tasks}
        for folder in self.folder.iterdir():
            if folder.is_dir() and folder.name not in kept:
                shutil.rmtree(folder)


def _read(path: Path) -> dict[str, Any]:
    """The object in `path`; empty if there is none that can be read."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}
