"""The saved progress of an evaluation, from which another attempt continues."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from quatrain.atomic_files import flush_to_disk, held_folder, require_name, take_room
from quatrain.errors import InputError, Interrupted, remedy_for

_LOG = "progress.jsonl"


@dataclass(frozen=True)
class Step:
    """A chunk of the text that one model has read.

    `losses`: what each token that counts cost, in nats. Of all chunks so far: `seconds`, and the
    `divergence` and `same` of `Comparer.so_far`. `runtime`: on what.
    """

    runtime: str
    seconds: float
    losses: list[float]
    divergence: float
    same: int


class EvaluationLog:
    """The steps of each row of the evaluation's table, and a `folder` for what they leave.

    With a `file` each step is written into it, a line of JSON, and is on the disk when `note`
    returns.
    """

    def __init__(self, folder: Path, file: Path | None, steps: Mapping[str, list[Step]]):
        self.folder, self._file, self._steps = folder, file, steps

    def steps(self, row: str) -> list[Step]:
        """Those that are done, in order."""
        return list(self._steps.get(row, ()))

    def note(self, row: str, step: Step) -> None:
        """Keep a step, after what it left in the folder. Raises `InputError` on a full disk."""
        if self._file is None:
            return
        with _writing(self.folder):
            for left in self.folder.iterdir():
                if left != self._file:
                    flush_to_disk(left)
            with self._file.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"row": row, **asdict(step)}) + "\n")
                file.flush()
                os.fsync(file.fileno())

    def reserve(self, name: str, size: int) -> Path:
        """A file of `size` bytes in the folder, with what an earlier attempt left in it.

        All its room is taken at once. Raises `InputError` if there is not as much.
        """
        path = self.folder / name
        with _writing(self.folder), path.open("ab") as file:
            take_room(file, size)
        return path


@contextmanager
def evaluation_log(folder: Path | None, key: str) -> Iterator[EvaluationLog]:
    """The log in `folder`, which is kept until the block is done; None keeps nothing.

    `key` identifies everything that determines the figures. Raises `InputError` if the folder holds
    something else or cannot be written, and `Interrupted` if the user stops it.
    """
    if folder is None:
        with tempfile.TemporaryDirectory(prefix="quatrain-") as temporary:
            yield EvaluationLog(Path(temporary), None, {})
        return
    require_name(folder, f"--resume {folder}")
    refusal = (
        f"--resume {folder}: another evaluation is being written there; wait until it ends, or "
        "name another folder"
    )
    with held_folder(folder, refusal, _writing):
        with _writing(folder):
            log = _opened_log(folder, key)
        try:
            yield log
        except KeyboardInterrupt:
            raise Interrupted(
                f"interrupted; finished work is in {folder}, and the same command resumes it"
            ) from None
        shutil.rmtree(folder)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "name a folder" if isinstance(error, FileExistsError) else remedy_for(error)
        raise InputError(
            f"--resume {folder}: cannot be written: {error.strerror or error}; {remedy}"
        ) from error


def _opened_log(folder: Path, key: str) -> EvaluationLog:
    file = folder / _LOG
    if any(folder.iterdir()) and not file.is_file():
        raise InputError(
            f"--resume {folder}: holds other files than those of an evaluation; name a new folder"
        )
    with _undamaged(folder):
        whole, length = _whole_lines(file) if file.is_file() else ([], 0)
    if not whole:
        file.write_text(json.dumps({"key": key}) + "\n", encoding="utf-8")
        return EvaluationLog(folder, file, {})
    if whole[0] != {"key": key}:
        raise InputError(
            f"--resume {folder}: holds another evaluation: its models, text or options were "
            "others, or a file has changed since; name another folder, or delete this one"
        )
    os.truncate(file, length)
    steps: dict[str, list[Step]] = {}
    with _undamaged(folder):
        for line in whole[1:]:
            steps.setdefault(line.pop("row"), []).append(Step(**line))
    return EvaluationLog(folder, file, steps)


@contextmanager
def _undamaged(folder: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"--resume {folder}: its {_LOG} is damaged ({error}); name another folder, or delete "
            "this one"
        ) from error


def _whole_lines(file: Path) -> tuple[list[dict], int]:
    """What the lines say, and their length in bytes; the last may have been cut off."""
    lines = file.read_bytes().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith(b"\n")]
    return [json.loads(line) for line in whole], sum(map(len, whole))
