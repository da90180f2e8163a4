"""Makes the small programs in `artifacts/` with ExecuTorch's own exporter (the peer).

Run it again with `python tests/program/make_artifacts.py` after an ExecuTorch upgrade; each
program comes with the logits of the peer's eager model for `TOKENS`, fed as a prompt of six
tokens and then one by one.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from executorch.examples.models.llama.export_llama_lib import export_llama
from executorch.examples.models.llama.llama_transformer import construct_transformer
from executorch.examples.models.llama.source_transformation.quantize import (
    get_quant_embedding_transform,
    quantize,
)
from executorch.extension.llm.export.builder import DType
from executorch.extension.llm.export.config.llm_config import DtypeOverride, LlmConfig
from tests.support.models.peer_models import (
    CONTEXT,
    LFM2,
    LLAMA,
    QWEN,
    model_args,
    random_weights,
)
from tests.support.paths import ARTIFACTS as FOLDER

TOKENS = [3, 17, 40, 9, 22, 61, 5, 33, 12]
PROMPT = 6


@dataclass(frozen=True)
class Recipe:
    """One program: the model, and how the peer is to export it."""

    params: dict[str, Any] = field(default_factory=lambda: LLAMA)
    qmode: str | None = "8da4w"
    fp16: bool = False
    embedding: str | None = None
    backend: str = "vulkan"
    static: bool = False  # calls of one token alone
    every_row: bool = False  # gives the logits of every token


_SMALL = LLAMA | {"n_layers": 1}
RECIPES = {
    "peer-8da4w-fp32": Recipe(),
    "peer-8da4w-fp32-emb4": Recipe(embedding="4,32"),
    "peer-8da4w-fp16-emb4": Recipe(fp16=True, embedding="4,32"),
    "peer-weight-only-fp32": Recipe(qmode="4w"),
    "peer-weight-only-fp16": Recipe(qmode="4w", fp16=True),
    "peer-qwen-8da4w-fp32": Recipe(params=QWEN),
    # Not among those that every test of artifacts calls alike.
    "other/peer-static": Recipe(params=_SMALL, static=True),
    "other/peer-every-row": Recipe(params=_SMALL, every_row=True),
    "other/peer-xnnpack-lfm2": Recipe(params=LFM2, backend="xnnpack"),
    "peer-xnnpack-8da4w": Recipe(backend="xnnpack"),
    "peer-xnnpack-qwen-fp16": Recipe(params=QWEN, fp16=True, backend="xnnpack"),
}


def make(name: str, recipe: Recipe) -> None:
    """Export one program and save the eager model's logits beside it."""
    with TemporaryDirectory() as folder:
        params = Path(folder) / "params.json"
        params.write_text(json.dumps(recipe.params))
        checkpoint = Path(folder) / "weights.pth"
        torch.save(random_weights(recipe.params), checkpoint)
        export_llama(llm_config(recipe, params, checkpoint, FOLDER / f"{name}.pte"))
        if recipe.backend == "vulkan" and "/" not in name:
            np.save(FOLDER / f"{name}.npy", eager_logits(recipe, torch.load(checkpoint)))


def llm_config(recipe: Recipe, params: Path, checkpoint: Path, output: Path) -> LlmConfig:
    config = LlmConfig()
    config.base.params, config.base.checkpoint = str(params), str(checkpoint)
    config.quantization.qmode, config.quantization.group_size = recipe.qmode, 32
    if recipe.embedding:
        config.quantization.embedding_quantize = recipe.embedding
    config.model.use_kv_cache = config.model.use_sdpa_with_kv_cache = True
    vulkan = recipe.backend == "vulkan"
    half = recipe.fp16 and not vulkan
    config.model.dtype_override = DtypeOverride.fp16 if half else DtypeOverride.fp32
    config.backend.vulkan.enabled, config.backend.vulkan.force_fp16 = vulkan, recipe.fp16
    config.backend.xnnpack.enabled = not vulkan
    config.backend.xnnpack.extended_ops = half
    config.export.max_seq_length = config.export.max_context_length = CONTEXT
    config.model.enable_dynamic_shape = not recipe.static
    config.debug.generate_full_logits = recipe.every_row
    config.export.output_name = str(output)
    return config


@torch.no_grad()
def eager_logits(recipe: Recipe, weights: dict[str, torch.Tensor]) -> np.ndarray:
    """The peer's quantized eager model on `TOKENS`: one row per call."""
    model = construct_transformer(model_args(recipe.params)).eval()
    model.load_state_dict(weights, strict=False)
    if recipe.embedding:
        model = get_quant_embedding_transform(recipe.embedding, False)(model)
    if recipe.qmode:
        model = quantize(model, recipe.qmode, computation_dtype=DType.fp32, group_size=32)
    calls = [(TOKENS[:PROMPT], 0)] + [([t], PROMPT + i) for i, t in enumerate(TOKENS[PROMPT:])]
    rows = []
    for tokens, position in calls:
        result = model(torch.tensor([tokens]), {"input_pos": torch.tensor([position])})
        rows.append((result[0] if isinstance(result, tuple) else result).reshape(-1).numpy())
    return np.stack(rows)


if __name__ == "__main__":
    (FOLDER / "other").mkdir(parents=True, exist_ok=True)
    for wanted in sys.argv[1:] or RECIPES:
        make(wanted, RECIPES[wanted])
