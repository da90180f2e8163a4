"""Decode and prefill on the CPU: our XNNPACK program, the peer's, and llama.cpp.

    python benchmarks/decode.py                          ours, and llama.cpp where installed
    python benchmarks/decode.py --peer peer-xnnpack.pte  the peer's program too

Tokens per second, medians of the runs. llama.cpp needs `pip install llama-cpp-python`, which
compiles it; it runs the GGUF file that SmolLM2 comes in (Q4_1).
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from measure import machine, print_table, write_json
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.quantize.pipeline import quantize_model
from quatrain.runtime.executorch import ExecutorchRunner
from quatrain.smollm2 import fetch_smollm2

RESULTS = Path(__file__).parent / "results" / "decode.json"
PROMPT, NEW_TOKENS, CONTEXT = 128, 64, 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer", type=Path, help="the peer's XNNPACK program")
    parser.add_argument("--ours", type=Path, help="our XNNPACK program; exported if not given")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    where = machine()
    with tempfile.TemporaryDirectory() as folder:
        ours = options.ours or export_ours(Path(folder))
        speeds = {"ours, XNNPACK 8da4w": measured(executorch_run(ours), options.runs)}
    if options.peer:
        speeds["peer, XNNPACK 8da4w"] = measured(executorch_run(options.peer), options.runs)
    if importlib.util.find_spec("llama_cpp"):
        speeds["llama.cpp, Q4_1"] = measured(llama_cpp_run(), options.runs)
    write_json(RESULTS, {"machine": where, "tokens_per_second": speeds})
    first = speeds["ours, XNNPACK 8da4w"]
    rows = [
        [name, f"{row['prefill']:.0f}", f"{row['decode']:.1f}",
         f"{first['decode'] / row['decode']:.2f}x"]
        for name, row in speeds.items()
    ]  # fmt: skip
    title = f"SmolLM2-135M on {where['cpu']}, {where['cores']} cores"
    print_table(title, ["", f"prefill {PROMPT}", f"decode {NEW_TOKENS}", "ours / it"], rows)


def export_ours(work: Path) -> Path:
    quantize_model(fetch_smollm2(), work / "c", embedding="int4", method="rtn")
    options = ExportOptions(backend="xnnpack", max_seq_len=CONTEXT)
    return export_checkpoint(work / "c", work / "ours.pte", options).output


Timed = Callable[[], tuple[float, float]]  # -> (prefill, decode) tokens per second


def measured(run: Timed, runs: int) -> dict[str, float]:
    """Medians over `runs`, after one that warms caches up."""
    run()
    found = [run() for _ in range(runs)]
    prefill, decode = zip(*found, strict=True)
    return {"prefill": statistics.median(prefill), "decode": statistics.median(decode)}


def executorch_run(program: Path) -> Timed:
    runner = ExecutorchRunner(program)
    prompt = torch.arange(100, 100 + PROMPT)[None]

    def run() -> tuple[float, float]:
        begun = time.perf_counter()
        logits = runner.forward(prompt, torch.tensor([0]))
        prefilled = time.perf_counter()
        for step in range(NEW_TOKENS):
            token = logits.reshape(1, -1).argmax(-1, keepdim=True)
            logits = runner.forward(token, torch.tensor([PROMPT + step]))
        return PROMPT / (prefilled - begun), NEW_TOKENS / (time.perf_counter() - prefilled)

    return run


def llama_cpp_run() -> Timed:
    from llama_cpp import Llama

    model = Llama(
        str(fetch_smollm2()), n_ctx=CONTEXT, n_threads=2, n_threads_batch=2, verbose=False
    )

    def run() -> tuple[float, float]:
        model.reset()
        begun = time.perf_counter()
        model.eval(list(range(100, 100 + PROMPT)))
        prefilled = time.perf_counter()
        for _ in range(NEW_TOKENS):
            model.eval([model.sample(temp=0.0)])
        return PROMPT / (prefilled - begun), NEW_TOKENS / (time.perf_counter() - prefilled)

    return run


if __name__ == "__main__":
    main()
