"""Runs missing tasks: in this process, in several, or on a Ray cluster."""

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from pathlib import Path
from typing import Any

import torch

from quatrain.release.tasks.functions import FUNCTIONS
from quatrain.release.tasks.on_ray import make_on_ray
from quatrain.release.tasks.store import Made, Store, Task, make
from quatrain.short_lists import and_more
from quatrain.stages import TICK, Stages

_parts: "ctypes.Array[ctypes.c_double]"  # of a process for tasks, set by `begin_worker`


@dataclass(frozen=True)
class Workers:
    """What makes tasks: `jobs` at a time, each in a process of its own where that is more than
    one; or the Ray cluster at the address `ray`. One takes up to `memory` bytes."""

    jobs: int
    memory: int
    ray: str | None = None


def make_all(store: Store, tasks: Sequence[Task], workers: Workers, stages: Stages) -> list[Made]:
    """Make those of `tasks` that are not in the store; each is reported when it ends."""
    missing = [task for task in tasks if store.find(task) is None]
    store.folder.mkdir(parents=True, exist_ok=True)
    if workers.ray is not None and missing:
        make_on_ray(store, missing, workers.ray, workers.memory, stages)
    elif workers.jobs > 1 and len(missing) > 1:
        _in_processes(store, missing, min(workers.jobs, len(missing)), stages)
    else:
        for task in missing:
            with stages(task.title) as advance:
                make(store.place(task), task, FUNCTIONS[task.kind], advance)
    found = [store.find(task) for task in tasks]
    return [made for made in found if made is not None]


def begin_worker(threads: int, parts: "ctypes.Array[ctypes.c_double]") -> None:
    """What a process does first: it ends when the one that asked for it is killed, which would
    leave it waiting forever. That one reads in `parts` what part of each task is done."""
    global _parts
    _parts = parts
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it here too
    parent = parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    torch.set_num_threads(threads)


def _in_processes(store: Store, tasks: Sequence[Task], jobs: int, stages: Stages) -> None:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    context = get_context("spawn")  # not forked: torch's threads do not survive it
    parts = context.RawArray(ctypes.c_double, len(tasks))
    pool = ProcessPoolExecutor(jobs, context, begin_worker, (threads, parts))
    titles = and_more([one.title for one in tasks])
    with pool, stages(f"{titles}, {jobs} at a time") as advance:
        waiting = {
            pool.submit(_make, index, store.place(task), task, FUNCTIONS[task.kind])
            for index, task in enumerate(tasks)
        }
        try:
            while waiting:
                ended, waiting = wait(waiting, TICK, FIRST_COMPLETED)
                for future in ended:
                    future.result()
                advance(sum(parts) / len(tasks))
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C, or another signal
                _ignore_ctrl_c()
                for worker in active_children():
                    worker.terminate()
            pool.shutdown(cancel_futures=True)
            raise


def _ignore_ctrl_c() -> None:
    """From now on: a second one would break what ends the processes, with a traceback."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _make(index: int, folder: Path, task: Task, function: Callable[..., dict[str, Any]]) -> None:
    """As `make`, in a process that `begin_worker` began, of the task `index`."""

    def advance(fraction: float) -> None:
        _parts[index] = fraction

    make(folder, task, function, advance)
    advance(1.0)
