"""A small random int4 checkpoint for exports: deep enough that its layers are replicated."""

import json
from pathlib import Path

from safetensors.torch import save_file
from tests.support.models.tiny_models import int4_tensors

PARAMS = {
    "dim": 64,
    "n_layers": 4,
    "n_heads": 4,
    "n_kv_heads": 2,
    "hidden_dim": 96,
    "vocab_size": 128,
    "norm_eps": 1e-5,
    "max_seq_len": 64,
}

# XNNPACK lowers each shape of linear once a process: these are three, alike in all tests. In 8da4w
# queries, keys and values are one linear, of as many rows as gate and up together.
FEW_SHAPES = {"n_kv_heads": 2, "hidden_dim": 64}

QWEN_LIKE = {"use_hf_rope": True, "attention_qkv_bias": True, "use_qk_norm": True}


def write_checkpoint(
    folder: Path,
    embedding: str = "int8",
    output: str = "int4",
    seed: int = 0,
    group_size: int = 32,
    **params,
) -> Path:
    """Write `model.safetensors` and `params.json`; `params` replace those above.

    `output` "tied": the output layer is the embedding's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    params = PARAMS | params
    (folder / "params.json").write_text(json.dumps(params))
    shape = {"head_dim": None} | params
    tensors = int4_tensors(group_size, embedding, output, seed, **shape)
    save_file(tensors, folder / "model.safetensors")
    return folder
