"""Runs tasks of a release on the machines of a Ray cluster, which share its folder."""

import logging
import os
import shutil
import threading
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from quatrain.errors import InputError, QuatrainError
from quatrain.release.spec import ReleaseSpec
from quatrain.release.tasks.functions import FUNCTIONS
from quatrain.release.tasks.store import Store, Task, make
from quatrain.short_lists import and_more
from quatrain.stages import Stages

_CONNECTING = threading.Lock()  # several releases at a time share one connection
_RETRIES = 3  # of a task whose worker was lost


def make_on_ray(
    store: Store, tasks: Sequence[Task], address: str, memory: int, stages: Stages
) -> None:
    """Make `tasks` on the cluster at `address` ("auto": the one on this machine), each where
    `memory` bytes are free; again on another worker if one is lost.

    Raises `InputError` if Ray is not installed, there is no cluster, or none of its machines is
    large enough; and as the tasks do.
    """
    ray = _connected(address, memory)
    remote = ray.remote(num_cpus=1, memory=memory, max_retries=_RETRIES)(_make_aside)
    with stages(f"{and_more([task.title for task in tasks])}, on Ray") as advance:
        waiting = {
            remote.remote(store.place(task).absolute(), _portable(task)): task for task in tasks
        }
        while waiting:
            ready, _ = ray.wait(list(waiting), num_returns=1)
            _take(ray, ready[0], store.place(waiting.pop(ready[0])))
            advance(1 - len(waiting) / len(tasks))


def _connected(address: str, memory: int) -> Any:
    """Ray, connected to the cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise InputError("--ray needs Ray: pip install 'quatrain[ray]'") from None
    with _CONNECTING:
        _connect(ray, address)
    largest = max((node["Resources"].get("memory", 0) for node in ray.nodes()), default=0)
    if memory > largest:
        raise InputError(
            f"--ray {address}: a task takes {memory / 1e9:.1f} GB, but the largest machine of the "
            f"cluster has {largest / 1e9:.1f} GB; add a larger one"
        )
    return ray


def _connect(ray: Any, address: str) -> None:
    if ray.is_initialized():
        return
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise InputError(
            f"--ray {address}: no cluster answers ({first}); start one with `ray start --head`"
        ) from error


def _make_aside(place: Path, task: Task) -> str:
    """Make `task` beside its `place`: a worker that is only thought lost disturbs no other."""
    aside = place.with_name(f"{place.name}.{uuid.uuid4().hex[:8]}")
    make(aside, task, FUNCTIONS[task.kind])
    return str(aside)


def _take(ray: Any, result: Any, place: Path) -> None:
    """Put what a worker made to its place."""
    try:
        aside = ray.get(result)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, QuatrainError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        first = str(error).strip().partition("\n")[0]
        raise QuatrainError(
            f"--ray: a worker was lost {_RETRIES + 1} times ({first}); run the command again: "
            "finished work is kept"
        ) from error
    shutil.rmtree(place, ignore_errors=True)
    Path(aside).rename(place)


def _portable(task: Task) -> Task:
    """`task` with paths that another folder's process finds, and without who listens here."""

    def portable(value: Any) -> Any:
        if isinstance(value, Path):
            return value.absolute()
        if isinstance(value, ReleaseSpec):
            own = value.tokenizer
            return replace(value, tokenizer=own and Path(own).absolute())
        return Stages() if isinstance(value, Stages) else value

    return replace(
        task, arguments={name: portable(value) for name, value in task.arguments.items()}
    )
