"""Decode and prefill on the CPU: our XNNPACK program, the peer's, and llama.cpp.

    python benchmarks/decode.py                          ours, and llama.cpp where installed
    python benchmarks/decode.py --peer peer-xnnpack.pte  the peer's program too
    python benchmarks/decode.py --model gemma.gguf       another model than SmolLM2

Tokens per second, medians of the runs, which take turns, and of ours by theirs in each turn: a
machine's speed changes from one to the next. Each run loads its program anew: where its memory lies
makes several per cent. llama.cpp is the prebuilt one of `pip install xllamacpp`; it runs the GGUF
file that the model comes in (SmolLM2's is Q4_1), and times itself. Run with OMP_NUM_THREADS=1:
OpenMP's waiting threads, of torch and MKL, keep cores from the runtime's.
"""

import argparse
import importlib.util
import os
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
PROMPT, NEW_TOKENS = 128, 64
# Seconds before a run: Linux holds a process of real-time priority back that leaves none idle.
_PAUSE = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a GGUF file; SmolLM2's if not given")
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--peer", type=Path, help="the peer's XNNPACK program")
    parser.add_argument("--ours", type=Path, help="our XNNPACK program; exported if not given")
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    where, model = machine(), options.model or fetch_smollm2()
    with tempfile.TemporaryDirectory() as folder:
        ours = options.ours or export_ours(model, options.context, Path(folder))
        timed = {"ours, XNNPACK 8da4w": executorch_run(ours)}
        if options.peer:
            timed["peer, XNNPACK 8da4w"] = executorch_run(options.peer)
        if importlib.util.find_spec("xllamacpp"):
            timed["llama.cpp, the GGUF file"] = llama_cpp_run(model, options.context)
        speeds = measured(timed, options.runs)
    results = RESULTS.with_stem(f"decode-{model.stem}") if options.model else RESULTS
    write_json(results, {"machine": where, "tokens_per_second": speeds})
    rows = [
        [name, f"{row['prefill']:.0f}", f"{row['decode']:.1f}",
         f"{row['ours / it, prefill']:.2f}x", f"{row['ours / it, decode']:.2f}x"]
        for name, row in speeds.items()
    ]  # fmt: skip
    title = f"{model.stem} on {where['cpu']}, {where['cores']} cores"
    heads = ["", f"prefill {PROMPT}", f"decode {NEW_TOKENS}", "ours / it, prefill", "decode"]
    print_table(title, heads, rows)


def export_ours(model: Path, context: int, work: Path) -> Path:
    quantize_model(model, work / "c", embedding="int4", method="rtn")
    options = ExportOptions(backend="xnnpack", max_seq_len=context)
    return export_checkpoint(work / "c", work / "ours.pte", options).output


Timed = Callable[[], tuple[float, float]]  # -> (prefill, decode) tokens per second


def measured(timed: dict[str, Timed], runs: int) -> dict[str, dict[str, float]]:
    """Medians over `runs`, in which each runs once, after one that warms caches up."""
    for run in timed.values():
        run()
    found = [{name: run() for name, run in timed.items()} for _ in range(runs)]
    ours = next(iter(timed))
    return {
        name: {
            "prefill": statistics.median(each[name][0] for each in found),
            "decode": statistics.median(each[name][1] for each in found),
            "ours / it, prefill": statistics.median(e[ours][0] / e[name][0] for e in found),
            "ours / it, decode": statistics.median(e[ours][1] / e[name][1] for e in found),
        }
        for name in timed
    }


def executorch_run(program: Path) -> Timed:
    prompt = torch.arange(100, 100 + PROMPT)[None]

    def run() -> tuple[float, float]:
        runner = ExecutorchRunner(program)
        runner.forward(prompt, torch.tensor([0]))
        runner.forward(prompt[:, :1], torch.tensor([PROMPT]))
        time.sleep(_PAUSE)
        begun = time.perf_counter()
        logits = runner.forward(prompt, torch.tensor([0]))
        prefilled = time.perf_counter()
        for step in range(NEW_TOKENS):
            token = int(logits.numpy().argmax())  # torch's takes longer by far
            logits = runner.forward(torch.tensor([[token]]), torch.tensor([PROMPT + step]))
        return PROMPT / (prefilled - begun), NEW_TOKENS / (time.perf_counter() - prefilled)

    return run


def llama_cpp_run(model: Path, context: int) -> Timed:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx, params.n_parallel, params.verbosity = context, 1, 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = len(os.sched_getaffinity(0))
    server = xllamacpp.Server(params)
    request = {
        "prompt": list(range(100, 100 + PROMPT)), "n_predict": NEW_TOKENS, "temperature": 0.0,
        "ignore_eos": True, "cache_prompt": False,
    }  # fmt: skip

    def run() -> tuple[float, float]:
        timings = server.handle_completions(request)["timings"]
        return timings["prompt_per_second"], timings["predicted_per_second"]

    return run


if __name__ == "__main__":
    main()
