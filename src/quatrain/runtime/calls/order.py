"""Which positions a call may begin at and reach."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from quatrain.errors import InputError
from quatrain.program import Program
from quatrain.program.inspect.sizes import keeps_windows
from quatrain.program.kept_state import overwrites_state

_TO_THE_END = 2**31 - 1  # ends from here on are how exporters write "no end"


def check_positions(start: int, end: int, context: int) -> None:
    """Refuse positions from `start` up to `end` (not included) beyond the program's context."""
    if start < 0 or end > context:
        raise InputError(
            f"positions {start} to {end - 1} do not fit the program's context of {context} "
            "tokens; use a shorter prompt or export a longer --max-seq-len"
        )


def sliced(start: int | None, end: int | None, size: int) -> tuple[int, int]:
    """The first row and the end of a slice of `size` rows, clamped by Python's rules.

    An end past the table is refused with `InputError`, unless it means "to the end": those rows of
    a rotary embedding do not exist.
    """
    if start is not None and end is not None and start >= 0 and size < end < _TO_THE_END:
        check_positions(start, end, size)
    begin, stop, _ = slice(start, end).indices(size)
    return begin, stop


class CallOrder:
    """If a program keeps only the state of the last tokens, each call must continue the previous
    one or begin a text; in other programs a call may go back (`rewinds`)."""

    def __init__(self, program: Program) -> None:
        says_so = bool(program.metadata.get("quatrain_keeps_last_inputs"))
        overwrites = says_so or overwrites_state(program)
        self.rewinds = not overwrites and not any(map(keeps_windows, program.graphs))
        self._next = 0

    @contextmanager
    def call(self, inputs: Sequence[Any]) -> Iterator[None]:
        """Computes a call with `inputs`, tokens [1, T] and the position of the first, which counts
        once it is computed; `InputError` if what it goes on from is gone."""
        if self.rewinds or len(inputs) != 2:
            yield
            return
        start, length = int(inputs[1][0]), int(inputs[0].shape[1])
        if start not in (0, self._next):
            goes_on = f"continues at position {self._next} or " if self._next else ""
            raise InputError(
                f"a call at position {start} after {self._next} tokens: the program keeps only "
                "the state of the last tokens (windows, convolutions, delta rules), so each call "
                f"{goes_on}begins a text at position 0"
            )
        yield
        self._next = start + length

    def reset(self) -> None:
        """The context is gone: the next call begins a text."""
        self._next = 0
