"""Ends a text at a stop string while it is generated."""

from collections.abc import Sequence

from quatrain.errors import InputError, require_several


def check_stops(stops: Sequence[str]) -> None:
    """Raise `InputError` if it is not a list, or for an empty stop string, which would end every
    text."""
    require_several("stop", stops)
    if not all(stops):
        raise InputError("--stop is an empty text, which every text begins with; leave it out")


class TextUntil:
    """Passes text on up to the one of `stops` that is whole first; holds back what may become one.

    `found` is the one that ended the text, None until one does. Raises as `check_stops`.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        check_stops(stops)
        self.stops = tuple(stops)
        self.found: str | None = None
        self._held = ""

    def push(self, text: str) -> str:
        """The part of `text`, and of what was held back, that cannot belong to a stop string."""
        if self.found is not None:
            return ""
        self._held += text
        # By where they end, so that nothing hangs on the pieces in which the text comes.
        ends = [
            (at + len(stop), at, stop) for stop in self.stops if (at := self._held.find(stop)) >= 0
        ]
        if ends:
            _, at, self.found = min(ends)
            return self._released(at)
        return self._released(len(self._held) - self._beginning())

    def finish(self) -> str:
        """What is still held back, where the text ended without a stop string."""
        return "" if self.found is not None else self._released(len(self._held))

    def _released(self, end: int) -> str:
        shown, self._held = self._held[:end], self._held[end:]
        return shown

    def _beginning(self) -> int:
        """How many characters at the end are the longest beginning of a stop string."""
        return max(
            (
                length
                for stop in self.stops
                for length in range(1, len(stop))
                if self._held.endswith(stop[:length])
            ),
            default=0,
        )
