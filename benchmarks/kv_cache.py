"""What a smaller KV cache costs: SmolLM2 with a window, with sinks, with keys and values in int8.

    python benchmarks/kv_cache.py                    rounded to nearest first
    python benchmarks/kv_cache.py --checkpoint DIR   an int4 checkpoint of SmolLM2

Perplexity on the story of `quatrain evaluate`: of attention to the first S and the last W tokens in
floating point, eager; and of XNNPACK programs with a float32 and an int8 cache, with its bytes and
tokens per second, medians, the two programs in turns.
"""

import argparse
import math
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from measure import machine, print_table, write_json
from quatrain.backbone.build import build_backbone
from quatrain.backbone.config import BackboneConfig
from quatrain.checkpoint.float_model import FloatModel
from quatrain.checkpoint.open import open_float_model
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.export.attention_sink import with_attention_sink
from quatrain.program import open_program
from quatrain.program.inspect.report import inspect_program
from quatrain.quantize.pipeline import quantize_model
from quatrain.runtime.executorch import ExecutorchRunner
from quatrain.smollm2 import fetch_smollm2
from quatrain.verify.evaluate.evaluate import DEFAULT_TEXT, evaluate_models

RESULTS = Path(__file__).parent / "results" / "kv_cache.json"
CONTEXT, PROMPT, STEPS, RUNS = 2048, 128, 24, 3
STARTS = (128, 1024)  # of decode
SEEN = 256  # tokens, after which windows of so many have all that they see
SINKS, WINDOWS = ((4, 252), (4, 60)), (256, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path)
    options = parser.parse_args()
    where = machine()
    attended = perplexities(open_float_model(fetch_smollm2()))
    with tempfile.TemporaryDirectory() as folder:
        programs = exported(Path(folder), options.checkpoint)
        kept = {name: figures(path) for name, path in programs.items()}
        for name, speeds in measured(programs).items():
            kept[name] |= speeds
    write_json(RESULTS, {"machine": where, "perplexity": attended, "xnnpack": kept})
    rows = [[name, *(f"{figure:.2f}" for figure in row.values())] for name, row in attended.items()]
    print_table("each token sees", ["", "perplexity", f"after {SEEN} tokens"], rows)
    rows = [[key, *(f"{one[key]:.1f}" for one in kept.values())] for key in kept["float32"]]
    print_table(f"{where['cpu']}, {where['cores']} cores", ["", *kept], rows)


def perplexities(model: FloatModel) -> dict[str, dict[str, float]]:
    """By what each token sees: of all that is predicted, and of what follows SEEN tokens."""
    words = model.tokenizer()
    assert words is not None
    ids = torch.tensor([words.encode(DEFAULT_TEXT.read_text(encoding="utf-8"))[:CONTEXT]])
    config = replace(model.config, max_seq_len=CONTEXT)
    seen = {"all": config}
    for sinks, window in SINKS:
        asked = with_attention_sink(config, (sinks, window), CONTEXT)
        seen[f"first {sinks}, last {window}"] = asked
    seen |= {f"last {window}": replace(config, sliding_window=window) for window in WINDOWS}
    return {name: perplexity(model, each, ids) for name, each in seen.items()}


@torch.inference_mode()
def perplexity(model: FloatModel, config: BackboneConfig, ids: torch.Tensor) -> dict[str, float]:
    backbone = build_backbone(config, model.tensors)
    hidden, losses = backbone.hidden(ids, 0)[0, :-1], []
    for rows, targets in zip(hidden.split(SEEN), ids[0, 1:].split(SEEN), strict=True):
        logs = backbone.logits(rows).log_softmax(-1)
        losses.append(-logs.gather(1, targets[:, None])[:, 0])
    loss = torch.cat(losses)
    return {"whole": math.exp(loss.mean()), "after": math.exp(loss[SEEN:].mean())}


def exported(work: Path, checkpoint: Path | None) -> dict[str, Path]:
    if checkpoint is None:
        checkpoint = work / "c"
        quantize_model(fetch_smollm2(), checkpoint, embedding="int4", method="rtn")
    options = ExportOptions(backend="xnnpack", max_seq_len=CONTEXT)
    made = {"float32": options, "int8": replace(options, kv_cache="int8")}
    return {
        name: export_checkpoint(checkpoint, work / f"{name}.pte", each).output
        for name, each in made.items()
    }


def figures(path: Path) -> dict[str, Any]:
    cache = inspect_program(open_program(path)).kv_cache
    (found,) = evaluate_models([path], DEFAULT_TEXT.read_text(encoding="utf-8"), 1000)
    assert cache is not None
    return {
        "cache, MB": cache.bytes / 1e6,
        "perplexity": found.perplexity,
        "file, MB": path.stat().st_size / 1e6,
    }


def measured(programs: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Tokens per second, medians of RUNS in which each program runs once."""
    runners = {name: ExecutorchRunner(path) for name, path in programs.items()}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in runners}
    for _ in range(RUNS + 1):
        for name, runner in runners.items():
            for what, speed in speeds_of(runner).items():
                found[name].setdefault(what, []).append(speed)
    return {
        name: {what: statistics.median(each[1:]) for what, each in speeds.items()}
        for name, speeds in found.items()
    }


def speeds_of(runner: ExecutorchRunner) -> dict[str, float]:
    text = torch.arange(100, 100 + PROMPT)[None]
    begun = time.perf_counter()
    runner.forward(text, torch.tensor([0]))
    found = {f"prefill of {PROMPT}": PROMPT / (time.perf_counter() - begun)}
    for start in STARTS:
        steps = []
        for step in range(STEPS):
            begun = time.perf_counter()
            runner.forward(torch.tensor([[5 + step]]), torch.tensor([start + step]))
            steps.append(time.perf_counter() - begun)
        found[f"decode after {start}"] = 1 / statistics.median(steps)
    return found


if __name__ == "__main__":
    main()
