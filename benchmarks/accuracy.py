"""What int4 costs: SmolLM2 rounded by Quatrain and by others, on the same tokens in one run.

    python benchmarks/accuracy.py --text TEXT.txt [--text OTHER.txt] [--tokens 4096] [--work DIR]

Each is held against the floating-point model: the ratio of perplexities with the standard error of
the paired difference, KL divergence, same top-1. A text must be none that anything was calibrated
with. HQQ is torchao's, with which ExecuTorch's exporter rounds by default, in the same groups;
llama.cpp's formats are written by ggml's own quantizer where `pip install xllamacpp` was run, and
are left out where not. All weights are dequantized exactly, and computed with in float32.
"""

import argparse
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torchao.quantization.quant_primitives import _choose_qparams_and_quantize_scale_only_hqq

import ggml_files
from measure import machine, print_table, write_json
from quatrain.checkpoint.open import open_float_model
from quatrain.int4 import INT4_MAX, INT4_MIN, Scheme
from quatrain.quantize.pipeline import quantize_model
from quatrain.smollm2 import fetch_smollm2
from quatrain.stages import Stages
from quatrain.verify.evaluate.evaluate import evaluate_models
from quatrain.verify.evaluate.evaluation import Evaluation

RESULTS = Path(__file__).parent / "results" / "accuracy.json"
GROUP = 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, action="append", required=True)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--work", type=Path, help="where checkpoints are kept, and found again")
    options = parser.parse_args()
    where = machine()
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        made = make_all(work)
        found: dict[str, Any] = {}
        for text in options.text:
            models = [fetch_smollm2(), *(one["path"] for one in made.values())]
            words = text.read_text(encoding="utf-8")
            whole, *rounded = evaluate_models(
                models, words, options.tokens, scheme=Scheme.WEIGHT_ONLY
            )
            found[text.name] = {
                "tokens": whole.predicted,
                "perplexity": whole.perplexity,
                "models": {name: row(one) for name, one in zip(made, rounded, strict=True)},
            }
            show(text.name, whole, made, found[text.name]["models"])
    said = {
        name: {"megabytes": one["bytes"] / 1e6, "seconds": one["seconds"]}
        for name, one in made.items()
    }
    write_json(RESULTS, {"machine": where, "made": said, "texts": found})


def make_all(work: Path) -> dict[str, dict[str, Any]]:
    """Each way of rounding: where its result is, its bytes on a phone, and how long it took."""
    model = fetch_smollm2()
    ways = {
        "round to nearest": lambda path: quantize_model(
            model, path, embedding="int4", method="rtn", stages=Stages()
        ),
        "default (gptq)": lambda path: quantize_model(model, path, stages=Stages()),
        "gptq, --backend vulkan": lambda path: quantize_model(
            model, path, stages=Stages(), backend="vulkan"
        ),
        "gptq, --backend vulkan --group-size 16": lambda path: quantize_model(
            model, path, 16, stages=Stages(), backend="vulkan"
        ),
        "gptq, its table int8": lambda path: quantize_model(
            model, path, embedding="int8", output_layer="int8", stages=Stages()
        ),
        "torchao's HQQ": lambda path: write_hqq(model, work / "round to nearest", path),
    }
    formats = {"llama.cpp Q4_0": ggml_files.q4_0, "llama.cpp Q4_K_M": ggml_files.q4_k_m}
    if not ggml_files.is_there():
        print("llama.cpp's formats are left out: `pip install xllamacpp` has its quantizer")
        formats = {}
    made = {name: _made(work / name, way) for name, way in ways.items()}
    for name, type_of in formats.items():
        requantize = partial(ggml_files.requantize, model, type_of=type_of)
        made[name] = _made(work / f"{name}.gguf", requantize)
    return made


def _made(path: Path, make: Any) -> dict[str, Any]:
    begun, seconds = time.perf_counter(), None  # where it is there already
    if not path.exists():
        make(path)
        seconds = time.perf_counter() - begun
    return {"path": path, "bytes": _bytes(path), "seconds": seconds}


def _bytes(path: Path) -> int:
    """Of the weights: int4 in half a byte, int8 in one, a scale in two, a tied table once."""
    if path.is_file():
        return path.stat().st_size
    tensors = load_file(path / "model.safetensors")
    if torch.equal(tensors["tok_embeddings.weight"], tensors["output.weight"]):
        del tensors["output.weight"], tensors["output.scales"]
    return sum(_stored_bytes(name, tensor, tensors) for name, tensor in tensors.items())


def _stored_bytes(name: str, tensor: torch.Tensor, tensors: dict[str, torch.Tensor]) -> int:
    if tensor.dtype != torch.int8:
        return tensor.numel() * 2
    a_scale_a_row = tensors[name.replace(".weight", ".scales")].numel() == len(tensor)
    return tensor.numel() if a_scale_a_row else tensor.numel() // 2


def write_hqq(model: Path, like: Path, path: Path) -> None:
    """The checkpoint `like`, its integers and scales those of torchao's HQQ, symmetric."""
    source = open_float_model(model).tensors
    tensors = load_file(like / "model.safetensors")
    for name in [name.removesuffix(".scales") for name in tensors if name.endswith(".scales")]:
        stored = "tok_embeddings" if name == "output" else name
        values, scales = _choose_qparams_and_quantize_scale_only_hqq(
            source[f"{stored}.weight"], [1, GROUP], INT4_MIN, INT4_MAX
        )
        tensors[f"{name}.weight"], tensors[f"{name}.scales"] = values.to(torch.int8), scales
    path.mkdir()
    for file in like.iterdir():
        if file.name != "model.safetensors":
            (path / file.name).write_bytes(file.read_bytes())
    save_file(tensors, path / "model.safetensors")


def row(one: Evaluation) -> dict[str, float | None]:
    assert one.against_first is not None
    return {
        "ratio": one.perplexity_ratio,
        "ratio_error": one.perplexity_ratio_error,
        "kl": one.against_first.kl,
        "top1": one.against_first.top1_agreement,
    }


def show(text: str, whole: Evaluation, made: dict[str, Any], rows: dict[str, Any]) -> None:
    print_table(
        f"SmolLM2-135M, {whole.predicted} tokens of {text}: {whole.perplexity:.2f} unrounded",
        ["", "MB", "seconds", "perplexity / floating point", "KL, nats", "same top-1"],
        [
            [
                name,
                f"{made[name]['bytes'] / 1e6:.1f}",
                "" if made[name]["seconds"] is None else f"{made[name]['seconds']:.0f}",
                f"{one['ratio']:.3f} +- {one['ratio_error']:.3f}",
                f"{one['kl']:.3f}",
                f"{one['top1']:.1%}",
            ]
            for name, one in rows.items()
        ],
    )


if __name__ == "__main__":
    main()
