"""A small random int4 checkpoint on disk, of any depth and shape."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from quatrain.quantize.methods.round_to_nearest import quantize_channels, quantize_groups

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
    tensors = _tensors(params, embedding, output, seed, group_size)
    save_file(tensors, folder / "model.safetensors")
    return folder


def _tensors(
    params: dict, embedding: str, output: str, seed: int, group_size: int
) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    dim, hidden, vocab = params["dim"], params["hidden_dim"], params["vocab_size"]
    head = dim // params["n_heads"]
    tensors = {"norm.weight": 1 + _random(generator, dim)}

    def add(name: str, rows: int, columns: int, kind: str = "int4") -> None:
        weight = _random(generator, rows, columns) / columns**0.5 * 10
        if kind == "fp":
            tensors[f"{name}.weight"] = weight
            return
        int4 = kind == "int4"
        quantized = quantize_groups(weight, group_size) if int4 else quantize_channels(weight)
        tensors[f"{name}.weight"], tensors[f"{name}.scales"] = quantized

    add("tok_embeddings", vocab, dim, embedding)
    if output != "tied":
        add("output", vocab, dim, output)
    for layer in range(params["n_layers"]):
        at = f"layers.{layer}."
        for name, rows in (("wq", params["n_heads"]), ("wk", params["n_kv_heads"])):
            add(f"{at}attention.{name}", rows * head, dim)
        add(f"{at}attention.wv", params["n_kv_heads"] * head, dim)
        add(f"{at}attention.wo", dim, dim)
        add(f"{at}feed_forward.w1", hidden, dim)
        add(f"{at}feed_forward.w2", dim, hidden)
        add(f"{at}feed_forward.w3", hidden, dim)
        for name in ("attention_norm", "ffn_norm"):
            tensors[f"{at}{name}.weight"] = 1 + _random(generator, dim)
        if params.get("attention_qkv_bias"):
            for name in ("wq", "wk", "wv"):
                rows = len(tensors[f"{at}attention.{name}.weight"])
                tensors[f"{at}attention.{name}.bias"] = _random(generator, rows)
        if params.get("use_qk_norm"):
            for name in ("q_norm_fn", "k_norm_fn"):
                tensors[f"{at}attention.{name}.weight"] = 1 + _random(generator, head)
    return tensors


def _random(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=generator) * 0.1
