"""How work is divided among threads, so that their number does not change a byte of the result."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

# Each of its threads sets torch's number of threads for itself: torch.set_num_threads in another
# thread, such as `torch_threads`, does not reach MKL here.
_POOL = ThreadPoolExecutor(
    torch.get_num_threads(),  # the machine's cores, or OMP_NUM_THREADS
    "quantize",
    initializer=torch.set_num_threads,
    initargs=(1,),
)
_Made = TypeVar("_Made")


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


def in_parallel(work: Callable[[slice], _Made], rows: int, piece: int) -> list[_Made]:
    """The results of `work` for each `piece` of `rows` rows, computed by one thread.

    `work` must not call this function: its threads would wait for themselves.
    """

    @torch.inference_mode()
    def of(piece: slice) -> _Made:
        return work(piece)

    pieces = [slice(first, min(first + piece, rows)) for first in range(0, rows, piece)]
    with torch_threads(1):
        return list((_POOL.map if len(pieces) > 1 else map)(of, pieces))
