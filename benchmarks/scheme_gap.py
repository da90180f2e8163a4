"""Checkpoints made for one scheme and run in the other: SmolLM2, three by two.

    python benchmarks/scheme_gap.py --text TEXT.txt [--tokens 2048] [--method gptq] [--work DIR]

One checkpoint is made for 8da4w, one for weight-only, one for both (`quantize --for`), and each is
read in either scheme: 8da4w with every activation quantized, as a phone reads a prompt, and
weight-only, as a phone decodes in both. All are held against the floating-point model on the same
tokens: the ratio of perplexities with the standard error of the paired difference, and KL
divergence. The text must be none that anything was calibrated with.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

from measure import machine, print_table, write_json
from quatrain.int4 import Scheme
from quatrain.quantize.calibration import Calibration
from quatrain.quantize.pipeline import quantize_model
from quatrain.quantize.tensor_formats import Rounding
from quatrain.smollm2 import fetch_smollm2
from quatrain.verify.evaluate.evaluate import evaluate_models
from quatrain.verify.evaluate.evaluation import Evaluation

RESULTS = Path(__file__).parent / "results" / "scheme_gap.json"
MADE_FOR = {"8da4w": Scheme.DYNAMIC_INT8, "weight-only": Scheme.WEIGHT_ONLY, "both": None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=2048)
    parser.add_argument(
        "--method", choices=[name for name in get_args(Rounding) if name != "rtn"], default="gptq"
    )
    parser.add_argument("--work", type=Path, help="where checkpoints are kept, and found again")
    options = parser.parse_args()
    where, model = machine(), fetch_smollm2()
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        work.mkdir(parents=True, exist_ok=True)
        made = {name: work / f"{options.method} for {name}" for name in MADE_FOR}
        seconds = {name: make(model, made[name], options.method, MADE_FOR[name]) for name in made}
        words = options.text.read_text(encoding="utf-8")
        models = [model, *made.values()]
        whole, *rounded = evaluate_models(models, words, options.tokens, scheme=Scheme.DYNAMIC_INT8)
    found = {
        name: {"seconds": seconds[name], "8da4w": row(one), "weight-only": row(one.decode)}
        for name, one in zip(made, rounded, strict=True)
    }
    show(whole, options.text.name, found)
    said = {"text": options.text.name, "tokens": whole.predicted, "perplexity": whole.perplexity}
    write_json(RESULTS, {"machine": where, "method": options.method, **said, "made_for": found})


def make(model: Path, path: Path, method: Rounding, scheme: Scheme | None) -> float:
    """Write the checkpoint unless it is there; returns how many seconds that took."""
    begun = time.perf_counter()
    if not path.exists():
        quantize_model(model, path, method=method, calibration=Calibration(scheme=scheme))
    return time.perf_counter() - begun


def row(one: Evaluation | None) -> dict[str, float]:
    assert one is not None and one.against_first is not None
    assert one.perplexity_ratio is not None and one.perplexity_ratio_error is not None
    return {
        "ratio": one.perplexity_ratio,
        "ratio_error": one.perplexity_ratio_error,
        "kl": one.against_first.kl,
        "top1": one.against_first.top1_agreement,
    }


def show(whole: Evaluation, text: str, found: dict[str, Any]) -> None:
    schemes = ("8da4w", "weight-only")
    print_table(
        f"SmolLM2-135M, {whole.predicted} tokens of {text}: {whole.perplexity:.2f} unrounded; "
        "perplexity / floating point, and KL in nats",
        ["made for", *(f"run as {scheme}" for scheme in schemes)],
        [
            [
                name,
                *(
                    f"{one[scheme]['ratio']:.3f} +- {one[scheme]['ratio_error']:.3f}   "
                    f"{one[scheme]['kl']:.3f}"
                    for scheme in schemes
                ),
            ]
            for name, one in found.items()
        ],
    )


if __name__ == "__main__":
    main()
