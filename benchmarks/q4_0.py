"""What becomes of a GGUF Q4_0 model: its own weights on Vulkan, and what XNNPACK changes in them.

    python benchmarks/q4_0.py

SmolLM2, which comes in Q4_1, is written in Q4_0 by the gguf package, quantized (which keeps every
weight), exported for both backends and evaluated against its checkpoint on the story of `quatrain
evaluate`. The Vulkan program runs on the CPU reference, which gives eager's bits.
"""

import tempfile
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from measure import machine, print_table, write_json
from quatrain.export import ExportOptions, export_checkpoint
from quatrain.quantize.pipeline import quantize_model
from quatrain.smollm2 import fetch_smollm2
from quatrain.verify.evaluate.evaluate import DEFAULT_TEXT, evaluate_models
from rewritten_gguf import rewritten_gguf

RESULTS = Path(__file__).parent / "results" / "q4_0.json"


def main() -> None:
    where, text = machine(), DEFAULT_TEXT.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        kept = quantize_model(
            write_q4_0(fetch_smollm2(), work / "q4_0.gguf"), work / "c", method="rtn"
        )
        notes, rows = [], {}
        for backend, device in (("vulkan", "reference"), ("xnnpack", "executorch")):
            options = ExportOptions(backend=backend, max_seq_len=512)
            report = export_checkpoint(work / "c", work / f"{backend}.pte", options)
            notes += report.notes
            eager, program = evaluate_models([work / "c", report.output], text, device=device)
            assert program.against_first is not None
            rows |= {
                "checkpoint, eager 8da4w": {"perplexity": eager.perplexity},
                f"{backend} 8da4w": {
                    "perplexity": program.perplexity,
                    "kl": program.against_first.kl,
                    "top1": program.against_first.top1_agreement,
                },
            }
    counted = {"groups": kept.exact_groups, "negative_scales": kept.negative_scales}
    write_json(RESULTS, {"machine": where, **counted, "notes": notes, "evaluated": rows})
    print_table(
        f"SmolLM2-135M in Q4_0: {kept.negative_scales} of {kept.exact_groups} scales are negative",
        ["", "perplexity", "KL, nats", "same top-1"],
        [
            [name, f"{row['perplexity']:.2f}"]
            + ([f"{row['kl']:.2e}", f"{row['top1']:.1%}"] if "kl" in row else ["", ""])
            for name, row in rows.items()
        ],
    )
    for note in notes:
        print(note)


def write_q4_0(model: Path, path: Path) -> Path:
    """The GGUF file `model` with its matrices in Q4_0."""

    def encode(name: str, weight: np.ndarray, layers: int) -> tuple[np.ndarray, Type]:
        kind = Type.Q4_0 if weight.ndim == 2 else Type.F32
        return gguf.quants.quantize(weight, kind), kind

    return rewritten_gguf(model, path, encode)


if __name__ == "__main__":
    main()
