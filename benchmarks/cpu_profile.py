"""Where the time of an XNNPACK program goes, by ExecuTorch's event tracer.

    python benchmarks/cpu_profile.py                 SmolLM2, rounded to nearest
    python benchmarks/cpu_profile.py --program PTE   another program

Milliseconds of a decode step and of a prompt of 128 tokens, the sums of each event's median: int4
linears, attention, what else delegates compute and their calls, ExecuTorch's own kernels, and what
lies between instructions. And at what speed a step's int4 linears read their weights, beside what
the machine's memory is read and copied at. Needs `pip install pandas tabulate`, as
`executorch.devtools` does.
"""

import argparse
import os
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

from decode import PROMPT, export_ours
from measure import machine, print_table, write_json
from quatrain.program import open_program
from quatrain.smollm2 import fetch_smollm2

RESULTS = Path(__file__).parent / "results" / "cpu_profile.json"
_MEMORY = 512 << 20  # bytes that are read and copied: more than caches hold
KINDS = ("int4 linears", "attention", "the rest of delegates", "other kernels", "between", "all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=Path)
    options = parser.parse_args()
    where = machine()
    with tempfile.TemporaryDirectory() as folder:
        program = options.program or export_ours(fetch_smollm2(), 512, Path(folder))
        found = {
            "decode": profile(program, 1, 40, Path(folder)),
            f"prefill of {PROMPT}": profile(program, PROMPT, 8, Path(folder)),
        }
        opened = open_program(program)
        weights = sum(len(opened.named_bytes(key)) for key in opened.named_data)
    speeds = {
        "int4 linears of a step": weights / found["decode"]["int4 linears"] / 1e6,
        **memory_speeds(),
    }
    write_json(RESULTS, {"machine": where, "milliseconds": found, "gb_per_s": speeds})
    rows = [[kind, *(f"{one[kind]:.1f}" for one in found.values())] for kind in KINDS]
    print_table(f"ms on {where['cpu']}, {where['cores']} cores", ["", *found], rows)
    print_table("GB/s", ["", "read"], [[name, f"{speed:.1f}"] for name, speed in speeds.items()])


def profile(program: Path, length: int, calls: int, folder: Path) -> dict[str, float]:
    """Milliseconds by kind of a call of `length` tokens, one after another from position 0."""
    import executorch.kernels.quantized  # noqa: F401 - it registers kernels
    from executorch.devtools import Inspector
    from executorch.extension.llm.custom_ops import custom_ops  # noqa: F401 - likewise
    from executorch.extension.pybindings import portable_lib

    loaded = portable_lib._load_for_executorch(str(program), enable_etdump=True)
    for call in range(calls):
        start = call if length == 1 else 0
        loaded.forward([torch.full((1, length), 5 + call), torch.tensor([start])])
    dump = folder / "etdump.etdp"
    loaded.write_etdump_result_to_file(str(dump))
    events = Inspector(etdump_path=str(dump)).to_dataframe()
    spent: Counter[str] = Counter()
    for _, event in events[events["event_block_name"] == "Execute"].iterrows():
        spent[re.sub(r"[_ ]*#?\d+$", "", str(event["event_name"]))] += event["p50 (ms)"]
    return by_kind(spent)


def by_kind(spent: Counter[str]) -> dict[str, float]:
    """Of the tracer's events: a delegate's call holds its operators, an operator's call its kernel,
    and the method all."""
    int4 = sum(ms for name, ms in spent.items() if "QB4W" in name)
    kernels = sum(ms for name, ms in spent.items() if name.startswith(("native_call", "llama")))
    attention = sum(ms for name, ms in spent.items() if "sdpa" in name)
    whole, delegates = spent["Method::execute"], spent["DELEGATE_CALL"]
    return {
        "int4 linears": int4,
        "attention": attention,
        "the rest of delegates": delegates - int4,
        "other kernels": kernels - attention,
        "between": whole - delegates - kernels,
        "all": whole,
    }


def memory_speeds() -> dict[str, float]:
    """GB/s at which all cores read memory, and copy it: read and written bytes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    source = torch.ones(_MEMORY // 4)
    target = torch.empty_like(source)
    speeds = {
        "memory, read": _MEMORY / median_seconds(source.sum) / 1e9,
        "memory, copied": 2 * _MEMORY / median_seconds(lambda: target.copy_(source)) / 1e9,
    }
    torch.set_num_threads(threads)
    return speeds


def median_seconds(work: Callable[[], object]) -> float:
    found = []
    for _ in range(9):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


if __name__ == "__main__":
    main()
