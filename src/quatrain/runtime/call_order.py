"""Which positions a call may begin at."""

from collections.abc import Sequence
from typing import Any

from quatrain.errors import InputError
from quatrain.program import VulkanGraph
from quatrain.program.inspect.sizes import keeps_windows


class CallOrder:
    """Of a program whose KV caches hold the last tokens alone, each call follows on the one before
    or begins a text; of any other a call may go back (`rewinds`)."""

    def __init__(self, graph: VulkanGraph) -> None:
        self.rewinds = not keeps_windows(graph)
        self._next = 0

    def check(self, inputs: Sequence[Any]) -> None:
        """Note a call with `inputs`, tokens [1, T] and the position of the first; `InputError`
        where its keys are gone."""
        if self.rewinds or len(inputs) != 2:
            return
        start, length = int(inputs[1][0]), int(inputs[0].shape[1])
        if start not in (0, self._next):
            raise InputError(
                f"a call at position {start} after {self._next} tokens: the program keeps the keys "
                f"of its windows alone, so that a call goes on at position {self._next} or begins "
                "a text at position 0"
            )
        self._next = start + length
