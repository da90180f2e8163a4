"""Named stages of long work: their wall time, and the memory of the process."""

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

TICK = 1.0  # seconds between two calls of `elapsed`


def installed_memory_bytes() -> int:
    """The physical memory of this machine, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_rss_bytes() -> int:
    """The most memory this process has held so far (resident set size, bytes).

    Linux's `ru_maxrss` starts at the size of the process that launched this one; the
    high-water mark of the address space, `VmHWM` of `proc_pid_status(5)`, does not.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # Windows has none; there the command line says so, which imports this

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def return_freed_memory() -> None:
    """Give the system what glibc keeps of memory that was freed, between what is still used
    (`malloc_trim(3)`); other C libraries have no such call."""
    trim = _of_c_library("malloc_trim")
    if trim is not None:
        trim(0)


# mallopt(3)'s M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
_TRIM, _MMAP = -1, -3
_ADAPTED = 32 << 20  # bytes, the highest M_MMAP_THRESHOLD that glibc adapts itself to; trim: twice


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Inside this context, glibc keeps freed memory and reuses it for the next tensor of that size:
    getting 50 MB from the system again costs about as much as computing a matrix of that size. It
    has no effect with other C libraries (`mallopt(3)`)."""
    option = _of_c_library("mallopt")
    if option is None:
        yield
        return
    option(_MMAP, 1 << 30)
    option(_TRIM, (1 << 31) - 1)
    try:
        yield
    finally:
        option(_MMAP, _ADAPTED)
        option(_TRIM, 2 * _ADAPTED)
        return_freed_memory()


def _of_c_library(name: str) -> Callable[..., int] | None:
    """A function of the C library; None if it has none of that name, or is not Linux's."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


@dataclass
class Stages:
    """Measures named stages, in order, and calls a listener when each begins and ends.

    `listener(name, seconds)` is called with `seconds=None` when a stage begins and with its
    duration when it ends; `progress(name, fraction, seconds_left)` when a stage reports progress;
    `elapsed(name, seconds)` every second while a stage runs, from another thread. `seconds` maps
    each name to its wall time.
    """

    listener: Callable[[str, float | None], None] | None = None
    progress: Callable[[str, float, float], None] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    elapsed: Callable[[str, float], None] | None = None
    _running: list[Callable[[float, str], None]] = field(default_factory=list)

    def advance(self, fraction: float, said: str = "") -> None:
        """Report the progress of the innermost running stage: the completed fraction, and a
        text."""
        if self._running:
            self._running[-1](fraction, said)

    @contextmanager
    def __call__(self, name: str) -> Iterator[Callable[[float], None]]:
        """Time a stage. What it gives is to be called with the fraction that is done."""
        if self.listener:
            self.listener(name, None)
        start = time.perf_counter()

        def advance(fraction: float, said: str = "") -> None:
            if self.progress and fraction > 0:
                spent = time.perf_counter() - start
                shown = f"{name}: {said}" if said else name
                self.progress(shown, fraction, spent * (1 - fraction) / fraction)

        self._running.append(advance)
        try:
            with self._ticking(name, start):
                yield advance
        finally:
            self._running.pop()
        spent = time.perf_counter() - start
        self.seconds[name] = self.seconds.get(name, 0.0) + spent
        if self.listener:
            self.listener(name, spent)

    @classmethod
    def of_parts(cls, count: int, advance: Callable[[float], None]) -> "Stages":
        """`count` stages within a stage: `advance` is called with the completed fraction of all, as
        if each took equally long."""
        done = 0

        def listen(_name: str, seconds: float | None) -> None:
            nonlocal done
            if seconds is not None:
                done += 1
                advance(done / count)

        return cls(listen, lambda _name, fraction, _left: advance((done + fraction) / count))

    @contextmanager
    def _ticking(self, name: str, start: float) -> Iterator[None]:
        """Call `elapsed` each second; never again once the stage has ended, however it ends."""
        elapsed = self.elapsed
        if elapsed is None:
            yield
            return
        ended = threading.Event()

        def tick() -> None:
            while not ended.wait(TICK):
                elapsed(name, time.perf_counter() - start)

        thread = threading.Thread(target=tick, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
