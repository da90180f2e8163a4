"""What a step spends its time on, as a table by operator and as a Chrome trace."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from quatrain.atomic_files import whole_file
from quatrain.runtime.wgpu.runner import Timing


@dataclass(frozen=True)
class OperatorTime:
    """All dispatches of one operator in a step, by its name in the graph."""

    operator: str
    dispatches: int
    milliseconds: float


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
