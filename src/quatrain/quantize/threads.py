"""How many threads compute: the same on every machine, so that the same bytes come out."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

_POOL = ThreadPoolExecutor(2, thread_name_prefix="quantize")
_Made = TypeVar("_Made")
_WIDE = 1024  # columns, from which on products take milliseconds


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch divide an operation among `count` threads.

    Rounding is thousands of operations of some microseconds on a cache-sized block. Handing each to
    two threads gains little, and where another program wants the second core it costs ten times
    over: 38 s instead of 4 for SmolLM2. Operations on all tokens of a text take milliseconds.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_of_width(columns: int) -> int:
    """How many of torch's threads compute products with a square matrix [columns, columns]."""
    return 2 if columns >= _WIDE else 1


def in_two_threads(work: Callable[[slice], _Made], rows: int) -> list[_Made]:
    """The results of `work` for the first half of `rows` rows, and for the second."""

    @torch.inference_mode()
    def of(half: slice) -> _Made:
        return work(half)

    halves = [slice(0, rows // 2), slice(rows // 2, rows)]
    return list(_POOL.map(of, [half for half in halves if half.start < half.stop]))
