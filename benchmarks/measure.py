"""What the benchmarks share: whole-process figures, the machine's name, a table, JSON."""

import json
import os
import platform
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Run:
    """A finished process: wall and CPU seconds, and its peak resident memory in bytes."""

    wall: float
    cpu: float
    peak_rss: int


def measure(command: list[str], log: Path) -> Run:
    """Run `command` to its end, output into `log`, with the kernel's own accounting of it.

    It runs in the log's folder: the peer leaves its own logs where it is started.
    """
    begun = time.perf_counter()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    wall = time.perf_counter() - begun
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed; its output is in {log}")
    return Run(wall, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def medians(runs: list[Run]) -> dict[str, float]:
    """The median of each figure of `runs`."""
    return {
        "wall_s": statistics.median(run.wall for run in runs),
        "cpu_s": statistics.median(run.cpu for run in runs),
        "peak_rss_mb": statistics.median(run.peak_rss for run in runs) / 1e6,
        "runs": len(runs),
    }


def machine() -> dict[str, Any]:
    """Names the machine that figures were taken on, and how busy it was."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.partition(":")[2].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def print_table(title: str, headings: list[str], rows: list[list[str]]) -> None:
    table = Table(title=title)
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    Console(width=130).print(table)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")
    print(f"written: {path}")
