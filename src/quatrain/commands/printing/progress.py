"""Shows stages on standard error."""

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from quatrain.stages import Stages

_BETWEEN_SHOWS = 0.2  # seconds between two lines of progress, on a terminal
_BETWEEN_LINES = 10.0  # elsewhere, where each of them stays
_SLOW = 2.0  # seconds after which one wonders whether anything goes on


def shown_stages() -> Stages:
    """Stages that show themselves on standard error: a line for each as it ends.

    The running stage is shown with the seconds that it has taken, or, where it says how far it is,
    with how long it will still take: on a terminal in a line whose time is filled in at the end,
    elsewhere in one more line every ten seconds.
    """
    shown = _Line(sys.stderr)
    return Stages(shown.listen, shown.progress, elapsed=shown.elapsed)


@contextmanager
def said_where_slow(name: str, seconds: float = _SLOW) -> Iterator[None]:
    """Report on standard error that `name` runs, but only after `seconds`, so that an early error
    is printed alone."""
    line = f"  {name:<34}{seconds:8.0f} s ..."
    timer = threading.Timer(seconds, print, [line], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Line:
    """The last line of `stream`, that of the running stage."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.terminal = stream, stream.isatty()
        self.between = _BETWEEN_SHOWS if self.terminal else _BETWEEN_LINES
        self.written = 0.0  # when it was written last, or the stage began
        self.running: list[str] = []  # the innermost last
        self.silent = True  # whether the running stage has not said how far it is
        self.unshown: tuple[str, str] | None = None  # what it said last, too soon after a line

    def listen(self, name: str, seconds: float | None) -> None:
        """A stage begins, or has ended after `seconds`."""
        self.unshown = None
        if seconds is None:
            self.running.append(name)
            self.silent = True
            self.written = time.monotonic()
            if self.terminal:
                self._write_over(name, " ...", 0)
        else:
            self.running.remove(name)
            self._write(self._padded(f"  {name:<34}{seconds:8.1f} s") + "\n")

    def progress(self, name: str, fraction: float, left: float) -> None:
        """A stage has completed `fraction`, with an estimated time `left` in seconds."""
        self.silent = False
        self.unshown = name, f"{fraction:8.0%}, {left:.0f} s left"
        if time.monotonic() - self.written >= self.between:
            self._show()

    def elapsed(self, name: str, seconds: float) -> None:
        """A stage took `seconds`; its last progress line is kept."""
        waited = self.terminal or time.monotonic() - self.written >= self.between
        if not waited or self.running[-1:] != [name]:
            return
        if self.silent:
            self._write_over(name, f"{seconds:8.0f} s ...")
        elif self.unshown:
            self._show()

    def _show(self) -> None:
        if self.unshown:
            self._write_over(*self.unshown)
        self.unshown = None

    def _write_over(self, name: str, said: str, width: int = 34) -> None:
        """Print the line of a running stage, which the next one overwrites on a terminal, so it
        must not be wider than the terminal."""
        if not self.terminal:
            self._write(f"  {name:<{width}}{said}\n")
            return
        room = max(0, _columns() - len(said) - 3)
        shown = name if len(name) <= room else f"{name[: room - 1]}\N{HORIZONTAL ELLIPSIS}"
        self._write(self._padded(f"  {shown:<{min(width, room)}}{said}") + "\r")

    def _padded(self, line: str) -> str:
        """Over what stood there before, on a terminal."""
        return f"{line:<{_columns() - 1}}" if self.terminal else line

    def _write(self, line: str) -> None:
        self.written = time.monotonic()
        print(line, end="", file=self.stream, flush=True)


def _columns() -> int:
    return shutil.get_terminal_size().columns
