"""ExecuTorch's method `forward` in a process of its own.

Its runtime checks little of what a program's plan says: of a damaged program it ends the process,
or reads memory that is not there. In a process of its own that is an error like any other.
"""

import faulthandler
import mmap
import os
import re
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

import torch

from quatrain.errors import UNFIT, InputError

# What is logged of the machine, and of the arguments of an operator.
_OF_NO_USE = re.compile(r"\[cpuinfo|\S* ?arg \d+ with type id|$")
_Packed = tuple[bytes | None, torch.dtype, tuple[int, ...]]  # None: the bytes are shared
_SHARED_BYTES = 1 << 23  # the logits of one position, or of several; longer results are sent


_LOOK = 30.0  # seconds: what sleeps from one look to the next waits for what never comes


class MethodFailed(Exception):
    """The runtime refuses what it is given, and says why."""


class MethodProcess:
    """The method `forward` of the program `path`, as ExecuTorch of the installed wheel computes it.

    Import `executorch.runtime`, and what registers the kernels that the program needs, before: the
    process is forked.

    Raises:
        MethodFailed: The runtime does not load the method.
        InputError: The runtime ends its process.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()  # threads may share a runner
        self._start()

    def _start(self) -> None:
        context = get_context("fork")  # else torch and ExecuTorch are imported anew: seconds
        ends = self._connection, given = context.Pipe()
        self._held = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process is
        self._shared = mmap.mmap(-1, _SHARED_BYTES)  # a pipe takes 64 KB at a time
        self._process = context.Process(
            target=_compute, args=(self._path, *ends, self._held, self._shared), daemon=True
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads, none of which it needs
            self._process.start()
        given.close()
        self._unread = self._hangs = False
        self.load()

    def load(self) -> None:
        """Load the method, without a context; in another process where the first has ended."""
        if self._connection.closed:
            self._start()
            return
        self._ask(None, "loads it")

    def execute(self, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
        """The first result of a call, which takes `inputs`. Raises as the constructor does."""
        shapes = [list(value.shape) for value in inputs]
        packed = [_packed(value) for value in inputs]
        return self._ask(packed, f"computes a call of inputs of shapes {shapes}")

    def close(self) -> None:
        """End the process."""
        self._connection.close()
        self._process.kill()
        self._process.join()

    def __del__(self) -> None:
        if hasattr(self, "_process") and not sys.is_finalizing():
            self.close()

    def _ask(self, request: Any, doing: str) -> Any:
        if self._connection.closed:
            raise InputError(
                f"{self._path}: the ExecuTorch runtime ended at an earlier call, and its context "
                "is gone; begin anew (reset)"
            )
        try:
            with self._lock:
                if self._unread:  # an interrupt came before the answer
                    self._receive()
                self._connection.send(request)
                answer, failure = self._receive()
                result = None if answer is None else _unpacked(answer, self._shared)
        except (EOFError, ConnectionError) as error:
            self._process.join()
            said = self._said()
            self.close()
            raise InputError(f"{self._path}: {self._end(doing, said)}") from error
        if failure is not None:
            raise MethodFailed(f"{failure}{self._said()}")
        return result

    def _receive(self) -> Any:
        self._unread = True
        seen = None
        while not self._connection.poll(_LOOK):  # where an interrupt breaks nothing
            before, seen = seen, self._asleep()
            if seen is not None and seen == before:
                self._hangs = True
                self._process.kill()
        answer = self._connection.recv()
        self._unread = False
        return answer

    def _asleep(self) -> list[list[str]] | None:
        """How long each thread of the process has computed; None if one is not asleep, or the
        system does not tell (it is not Linux)."""
        files = Path(f"/proc/{self._process.pid}/task").glob("*/stat")
        with suppress(OSError):  # a thread ends meanwhile
            told = [file.read_text().rpartition(")")[2].split() for file in files]
            return [each[11:13] for each in told] if {each[0] for each in told} == {"S"} else None
        return None

    def _end(self, doing: str, said: str) -> str:
        """Why the process has ended."""
        code = self._process.exitcode or 0
        if self._hangs:
            return (
                f"the ExecuTorch runtime hangs as it {doing}{said}; it is damaged, or made for "
                "another runtime: export it again"
            )
        if code == -signal.SIGKILL:
            return (
                f"the ExecuTorch runtime was killed as it {doing}, as systems do where memory is "
                "short; close other programs or use a smaller model"
            )
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return (
            f"the ExecuTorch runtime crashes ({name}) as it {doing}{said}; it is damaged, or made "
            "for another runtime: export it again"
        )

    def _said(self) -> str:
        """Why and where, as the runtime has logged it: the first line and the last."""
        self._held.seek(0)
        logged = self._held.read().decode(errors="replace").splitlines()
        lines = [
            line.split("] ", 1)[-1].strip(" .") for line in logged if not _OF_NO_USE.match(line)
        ]
        said = list(dict.fromkeys(line for line in (*lines[:1], *lines[-1:]) if line))
        return f"; it says: {'; '.join(said)}" if said else ""


def _compute(
    path: Path, other: Connection, connection: Connection, held: IO[bytes], shared: mmap.mmap
) -> None:
    """What the process does: answers requests with (the result, None) or (None, why not), until no
    process has the `other` end."""
    other.close()
    faulthandler.disable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it here too
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    os.dup2(held.fileno(), 1)
    os.dup2(held.fileno(), 2)
    sys.stdout = sys.stderr = os.fdopen(2, "w", 1)  # what bindings write is written there
    # OpenMP's threads of the process before are not here, and the thread that forked would wait for
    # them without end.
    thread = threading.Thread(target=_answer, args=(path, connection, shared))
    thread.start()
    thread.join()


def _answer(path: Path, connection: Connection, shared: mmap.mmap) -> None:
    from executorch.runtime import Runtime

    program = method = None
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        os.ftruncate(2, 0)
        os.lseek(2, 0, os.SEEK_SET)
        try:
            if request is None:
                program = program or Runtime.get().load_program(path)
                method = program.load_method("forward")
                answer = None
            else:
                assert method is not None
                answer = _packed(method.execute([_unpacked(one) for one in request])[0], shared)
            connection.send((answer, None))
        except UNFIT as error:
            connection.send((None, str(error)))


def _packed(value: torch.Tensor, shared: mmap.mmap | None = None) -> _Packed:
    """What is sent of `value`, whose bytes are put into `shared` if they fit."""
    raw = value.contiguous().reshape(-1).view(torch.uint8).numpy()
    if shared is None or len(raw) > len(shared):
        return raw.tobytes(), value.dtype, tuple(value.shape)
    shared[: len(raw)] = raw.data
    return None, value.dtype, tuple(value.shape)


def _unpacked(packed: _Packed, shared: mmap.mmap | None = None) -> torch.Tensor:
    raw, dtype, shape = packed
    value = torch.empty(shape, dtype=dtype)
    if value.numel():
        source = shared if raw is None else bytearray(raw)
        assert source is not None
        value.copy_(torch.frombuffer(source, dtype=dtype, count=value.numel()).reshape(shape))
    return value
