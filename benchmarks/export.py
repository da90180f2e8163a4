"""Export of SmolLM2-135M: ours against ExecuTorch's own exporter, on both backends.

    python benchmarks/export.py            ours; the peer's rows from results/export.json
    python benchmarks/export.py --peer     the peer too (a quarter of an hour)

Each figure is of a whole process. "cold" is the first export of an architecture on a machine;
"warm" finds its template in the cache, for weight-only that which the 8da4w export left there.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from measure import machine, measure, medians, print_table, write_json
from peer import CONTEXT, peer_command, write_peer_checkpoint

RESULTS = Path(__file__).parent / "results" / "export.json"
OURS = {
    "vulkan 8da4w": [],
    "vulkan weight-only": ["--weight-only-linear"],
    "xnnpack 8da4w": ["--backend", "xnnpack"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", action="store_true", help="run the peer as well")
    parser.add_argument("--runs", type=int, default=3, help="runs of ours (default 3)")
    parser.add_argument("--embedding", default="int4", choices=("int8", "int4", "fp"))
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"peer": {}}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if options.peer:
            results["peer"] = run_peer(work)
        results["ours"] = run_ours(work, options.runs, options.embedding)
    write_json(RESULTS, results)
    show(results)


def run_peer(work: Path) -> dict:
    write_peer_checkpoint(work)
    rows = {}
    for backend in ("vulkan", "xnnpack"):
        output = work / f"peer-{backend}.pte"
        where = machine()
        run = measure(peer_command(work, backend, output), work / "peer.log")
        rows[f"{backend} 8da4w"] = {
            **medians([run]), "bytes": output.stat().st_size, "machine": where,
        }  # fmt: skip
    return rows


def run_ours(work: Path, runs: int, embedding: str) -> dict:
    quatrain = [sys.executable, "-m", "quatrain"]
    quantize = [*quatrain, "quantize", "smollm2", "-o", str(work / "c"), "--embedding", embedding]
    quantize += ["--method", "rtn"]
    measure(quantize, work / "ours.log")
    rows = {}
    caches: dict[str, str] = {}  # by backend, as the last cold 8da4w export left it
    for name, flags in OURS.items():
        output = work / "ours.pte"
        command = [
            *quatrain, "export", str(work / "c"), "-o", str(output),
            "--max-seq-len", str(CONTEXT), *flags,
        ]  # fmt: skip
        backend = name.partition(" ")[0]
        where = machine()
        for state in ("cold", "warm"):
            found = []
            for _ in range(runs):
                os.environ["QUATRAIN_CACHE"] = (
                    tempfile.mkdtemp(dir=work) if state == "cold" else caches[backend]
                )
                found.append(measure(command, work / "ours.log"))
                caches.setdefault(backend, os.environ["QUATRAIN_CACHE"])
            rows[f"{name}, {state}"] = {
                **medians(found), "bytes": output.stat().st_size, "machine": where,
            }  # fmt: skip
    return rows


def show(results: dict) -> None:
    rows = []
    for name, row in results["ours"].items():
        peer = results["peer"].get(name.partition(",")[0].replace("weight-only", "8da4w"))
        rows.append([f"ours: {name}", *_figures(row), _ratio(peer, row)])
    for name, row in results["peer"].items():
        rows.append([f"peer: {name}", *_figures(row), ""])
    headings = ["SmolLM2-135M, context 512", "wall s", "CPU s", "peak MB", "file MB", "peer/ours"]
    where = results["ours"]["vulkan 8da4w, cold"]["machine"]
    print_table(f"{where['cpu']}, {where['cores']} cores", headings, rows)


def _figures(row: dict) -> list[str]:
    return [
        f"{row['wall_s']:.1f}", f"{row['cpu_s']:.1f}", f"{row['peak_rss_mb']:.0f}",
        f"{row['bytes'] / 1e6:.1f}",
    ]  # fmt: skip


def _ratio(peer: dict | None, ours: dict) -> str:
    return f"{peer['wall_s'] / ours['wall_s']:.1f}x" if peer else "not run"


if __name__ == "__main__":
    main()
