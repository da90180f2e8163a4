"""Runs the peer: ExecuTorch's own exporter, `executorch.extension.llm.export.export_llm`."""

import json
import sys
from pathlib import Path

import torch

from quatrain.checkpoint.open import open_float_model
from quatrain.smollm2 import fetch_smollm2

CONTEXT = 512


def write_peer_checkpoint(folder: Path, layers: int | None = None) -> None:
    """SmolLM2, or its first `layers`, in floating point as the peer reads it: a Meta `.pth` and
    its params.json."""
    model = open_float_model(fetch_smollm2())
    kept = range(layers or model.config.n_layers)
    tensors = {
        name: model.tensors[name].clone()
        for name in model.tensors
        if not name.startswith("layers.") or int(name.split(".")[1]) in kept
    }
    tensors.setdefault("output.weight", tensors["tok_embeddings.weight"])
    torch.save(tensors, folder / "model.pth")
    names = (
        "dim", "n_layers", "n_heads", "n_kv_heads", "head_dim", "vocab_size", "hidden_dim",
        "norm_eps", "rope_theta",
    )  # fmt: skip
    params = {name: getattr(model.config, name) for name in names} | {"n_layers": len(kept)}
    (folder / "params.json").write_text(json.dumps(params))


def peer_command(folder: Path, backend: str, output: Path) -> list[str]:
    """8da4w, group 32, KV cache, context 512, float32: what ours is asked for."""
    options = {
        "base.model_class": "llama3",
        "base.checkpoint": folder / "model.pth",
        "base.params": folder / "params.json",
        "quantization.qmode": "8da4w",
        "quantization.group_size": 32,
        "model.use_kv_cache": True,
        "model.use_sdpa_with_kv_cache": True,
        "model.dtype_override": "fp32",
        "export.max_seq_length": CONTEXT,
        "export.max_context_length": CONTEXT,
        "export.output_name": output,
        f"backend.{backend}.enabled": True,
    }
    if backend == "xnnpack":
        options |= {
            "backend.xnnpack.extended_ops": True,
            "quantization.embedding_quantize": "'4,32'",
        }
    return [
        sys.executable, "-m", "executorch.extension.llm.export.export_llm",
        *(f"{name}={value}" for name, value in options.items()),
    ]  # fmt: skip
