"""Prints the figures of docs/families.md: how far each family is from its model in transformers.

OMP_NUM_THREADS=1 python -m tests.checkpoint.families.measure_families
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import tests.backbone.test_parity as plain
import tests.checkpoint.families.test_gguf_families as gguf
import tests.checkpoint.families.test_llama4 as llama4
import tests.checkpoint.families.test_quantized_families as quantized
import transformers
from tests.checkpoint.families.test_families import FAMILIES, family_error
from tests.support.peers import parity_error, random_model

# Rows of the table, and the tests' models that each stands for: the largest error is shown.
ROWS = {
    "Llama 2, 3, SmolLM2": ["llama", "llama tied", "llama wide heads"],
    "Llama 3.1, 3.2": ["llama 3.1 rope"],
    "Qwen 2.5": ["qwen2", "qwen2 with sliding layers"],
    "Qwen 3 dense": ["qwen3"],
    "Mistral": ["mistral"],
    "Phi-3, Phi-4-mini": ["phi4 mini", "phi4 mini, long"],
    "Gemma 2": ["gemma2"],
    "Gemma 3 text": ["gemma3"],
    "Granite 3 dense": ["granite"],
    "SmolLM3": ["smollm3"],
    "Llama 4 text": list(llama4.MODELS),
}


def main() -> None:
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for row, names in ROWS.items():
        print(f"| {row} | {max(measured(model_error, name) for name in names):.1e} |", flush=True)
    errors = [measured(gguf.gguf_error, name) for name in gguf.MODELS]
    print(f"GGUF: {min(errors):.1e} to {max(errors):.1e}")
    errors = [
        measured(quantized_error, name, method)
        for name in quantized.MODELS
        for method in quantized.METHODS
    ]
    print(f"quantized folders: {min(errors):.1e} to {max(errors):.1e}")


def model_error(name: str, folder: Path) -> float:
    if name in FAMILIES:
        return family_error(name, folder)
    if name in llama4.MODELS:
        return parity_error(llama4.llama4(**llama4.MODELS[name]), folder)
    kind, fields = plain.MODELS[name]
    return parity_error(random_model(kind, **fields), folder)


def quantized_error(name: str, method: str, folder: Path) -> float:
    return quantized.logits_error(*quantized.write(folder, *quantized.MODELS[name], method))


def measured(error: Callable[..., float], *names: str) -> float:
    """`error` of `names` in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return error(*names, Path(folder))


if __name__ == "__main__":
    main()
