"""How an export's time and memory grow with depth and with parameters: random checkpoints.

    python benchmarks/shapes.py                 30, 60 and 120 layers, and the 1B shape
    python benchmarks/shapes.py --8b            and the 8B shape: 9 GB of checkpoint on disk
    python benchmarks/shapes.py --peer          and the peer at 5 and 10 layers of SmolLM2

Each figure is the median over processes that start with an empty template cache.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from measure import machine, measure, medians, print_table, write_json
from peer import peer_command, write_peer_checkpoint
from random_checkpoint import SHAPES, parameters, write_random_checkpoint

RESULTS = Path(__file__).parent / "results" / "shapes.json"
DEPTHS = (30, 60, 120)
PEER_DEPTHS = (5, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--8b", dest="large", action="store_true", help="the 8B shape too")
    parser.add_argument("--runs", type=int, default=3, help="runs of each (default 3)")
    parser.add_argument("--peer", action="store_true", help="the peer too")
    options = parser.parse_args()
    where = machine()
    peer = [measure_peer(depth) for depth in PEER_DEPTHS] if options.peer else _kept_peer()
    rows = [
        measure_shape("SmolLM2-135M", backend, options.runs, n_layers=depth)
        for backend in ("vulkan", "xnnpack")
        for depth in DEPTHS
    ]
    rows.append(measure_shape("Llama-3.2-1B", "vulkan", options.runs))
    rows.append(measure_shape("Llama-3.2-1B", "xnnpack", options.runs))
    if options.large:
        rows.append(measure_shape("Llama-3.1-8B", "vulkan", 1, group_size=128))
        weight_only = ["--weight-only-linear"]
        rows.append(measure_shape("Llama-3.1-8B", "vulkan", 1, flags=weight_only))
    write_json(RESULTS, {"machine": where, "rows": rows, "peer": peer})
    show([*rows, *peer], where)


def measure_shape(
    shape: str,
    backend: str,
    runs: int,
    group_size: int = 32,
    flags: list[str] | None = None,
    **changes: int,
) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        params = write_random_checkpoint(work / "c", shape, group_size, **changes)
        command = [
            sys.executable, "-m", "quatrain", "export", str(work / "c"), "-o",
            str(work / "m.pte"), "--max-seq-len", "512", "--backend", backend, *(flags or []),
        ]  # fmt: skip
        found = []
        for _ in range(runs):
            os.environ["QUATRAIN_CACHE"] = str(work / "cache")
            shutil.rmtree(work / "cache", ignore_errors=True)
            found.append(measure(command, work / "log"))
        return {
            "shape": shape, "layers": params["n_layers"], "parameters": parameters(params),
            "backend": backend, "group_size": group_size,
            "scheme": "weight-only" if flags else "8da4w",
            **medians(found), "bytes": (work / "m.pte").stat().st_size,
        }  # fmt: skip


def measure_peer(depth: int) -> dict:
    """ExecuTorch's own exporter on the first `depth` layers of SmolLM2, for Vulkan."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_peer_checkpoint(work, depth)
        run = measure(peer_command(work, "vulkan", work / "m.pte"), work / "log")
        params = SHAPES["SmolLM2-135M"] | {"n_layers": depth}
        return {
            "shape": "peer, SmolLM2-135M", "layers": depth, "parameters": parameters(params),
            "backend": "vulkan", "group_size": 32, "scheme": "8da4w",
            **medians([run]), "bytes": (work / "m.pte").stat().st_size, "machine": machine(),
        }  # fmt: skip


def _kept_peer() -> list[dict]:
    """The peer's rows of an earlier run."""
    return json.loads(RESULTS.read_text())["peer"] if RESULTS.is_file() else []


def show(rows: list[dict], where: dict) -> None:
    headings = ["shape", "layers", "backend", "wall s", "CPU s", "peak MB", "file MB"]
    table = [
        [
            f"{row['shape']}, {row['scheme']}, group {row['group_size']}", str(row["layers"]),
            row["backend"], f"{row['wall_s']:.1f}", f"{row['cpu_s']:.1f}",
            f"{row['peak_rss_mb']:.0f}", f"{row['bytes'] / 1e6:.1f}",
        ]
        for row in rows
    ]  # fmt: skip
    print_table(f"{where['cpu']}, {where['cores']} cores", headings, table)


if __name__ == "__main__":
    main()
