"""What a step spends its time on, as a table by operator and as a Chrome trace."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import wgpu

from quatrain.atomic_files import whole_file
from quatrain.runtime.wgpu.device import Gpu
from quatrain.runtime.wgpu.lowering import Lowered


@dataclass(frozen=True)
class Timing:
    """One dispatch on the GPU: when it began, since the step did, and how long it took.

    `operator` is its name in the graph; `shape` that of its first operand.
    """

    operator: str
    kernel: str
    shape: tuple[int, ...]
    begin: int  # nanoseconds
    nanoseconds: int


@dataclass(frozen=True)
class OperatorTime:
    """All dispatches of one operator in a step, by its name in the graph."""

    operator: str
    dispatches: int
    milliseconds: float


def new_queries(gpu: Gpu, dispatches: int) -> Any:
    """A set of timestamp queries: when each of `dispatches` begins, and when it ends."""
    return gpu.device.create_query_set(type="timestamp", count=2 * dispatches)


def read_timings(gpu: Gpu, queries: Any, lowered: Lowered) -> list[Timing]:
    """What `queries` hold once the dispatches of `lowered`, submitted before, are done."""
    count = 2 * len(lowered.dispatches)
    usage = wgpu.BufferUsage.QUERY_RESOLVE | wgpu.BufferUsage.COPY_SRC
    resolved = gpu.device.create_buffer(size=8 * count, usage=usage)
    staging = gpu.staging(8 * count)
    encoder = gpu.device.create_command_encoder()
    encoder.resolve_query_set(queries, 0, count, resolved, 0)
    encoder.copy_buffer_to_buffer(resolved, 0, staging, 0, 8 * count)
    gpu.device.queue.submit([encoder.finish()])
    ticks = gpu.read(staging, "uint64").astype(np.int64).reshape(-1, 2)
    return [
        Timing(
            operator=origin.name,
            kernel=dispatch.kernel,
            shape=dispatch.operands[0].shape,
            begin=int(begin - ticks[0][0]),
            nanoseconds=int(end - begin),
        )
        for dispatch, origin, (begin, end) in zip(
            lowered.dispatches, lowered.origins, ticks, strict=True
        )
    ]


def by_operator(timings: Iterable[Timing]) -> list[OperatorTime]:
    """The time of each operator, the longest first."""
    spent: dict[str, list[int]] = {}
    for timing in timings:
        spent.setdefault(timing.operator, []).append(timing.nanoseconds)
    times = [OperatorTime(name, len(each), sum(each) / 1e6) for name, each in spent.items()]
    return sorted(times, key=lambda time: -time.milliseconds)


def write_chrome_trace(timings: Iterable[Timing], path: Path) -> None:
    """Write `timings` for chrome://tracing or https://ui.perfetto.dev, times in microseconds.

    Source: the Trace Event Format, complete events ("ph": "X").
    """
    events = [
        {
            "name": timing.operator,
            "cat": timing.kernel,
            "ph": "X",
            "pid": 1,
            "tid": 1,
            "ts": timing.begin / 1e3,
            "dur": timing.nanoseconds / 1e3,
            "args": {"kernel": timing.kernel, "first operand": list(timing.shape)},
        }
        for timing in timings
    ]
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps({"traceEvents": events}))
