"""Random int4 checkpoints of the shapes of known models, written tensor by tensor."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

SHAPES = {
    "SmolLM2-135M": {
        "dim": 576, "n_layers": 30, "n_heads": 9, "n_kv_heads": 3, "hidden_dim": 1536,
        "vocab_size": 49152, "norm_eps": 1e-5, "rope_theta": 1e5, "max_seq_len": 8192,
    },
    "Llama-3.2-1B": {
        "dim": 2048, "n_layers": 16, "n_heads": 32, "n_kv_heads": 8, "hidden_dim": 8192,
        "vocab_size": 128256, "norm_eps": 1e-5, "rope_theta": 5e5, "max_seq_len": 8192,
    },
    "Llama-3.1-8B": {
        "dim": 4096, "n_layers": 32, "n_heads": 32, "n_kv_heads": 8, "hidden_dim": 14336,
        "vocab_size": 128256, "norm_eps": 1e-5, "rope_theta": 5e5, "max_seq_len": 8192,
    },
}  # fmt: skip
_TIED = ("SmolLM2-135M", "Llama-3.2-1B")


def parameters(params: dict) -> int:
    """How many weights a backbone of that shape has, a tied output layer's counted once."""
    return sum(rows * columns for _, rows, columns in _matrices(params, tied=True))


def write_random_checkpoint(folder: Path, shape: str, group_size: int = 32, **changes) -> dict:
    """Write the checkpoint of SHAPES[shape], its params as `changes` say; returns the params."""
    params = SHAPES[shape] | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps(params))
    matrices = list(_matrices(params, tied=shape in _TIED))
    tensors = dict(_tensors(params, matrices, group_size))
    header, end = {}, 0
    for name, (dtype, dims) in tensors.items():
        size = math.prod(dims) * {"I8": 1, "F32": 4}[dtype]
        header[name] = {"dtype": dtype, "shape": dims, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = np.random.default_rng(0)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for dtype, dims in tensors.values():
            file.write(_values(random, dtype, dims))
    return params


def _matrices(params: dict, tied: bool) -> Iterator[tuple[str, int, int]]:
    dim, hidden = params["dim"], params["hidden_dim"]
    keys = dim // params["n_heads"] * params["n_kv_heads"]
    yield "tok_embeddings", params["vocab_size"], dim
    if not tied:
        yield "output", params["vocab_size"], dim
    for layer in range(params["n_layers"]):
        for name, rows, columns in (
            ("attention.wq", dim, dim), ("attention.wk", keys, dim), ("attention.wv", keys, dim),
            ("attention.wo", dim, dim), ("feed_forward.w1", hidden, dim),
            ("feed_forward.w2", dim, hidden), ("feed_forward.w3", hidden, dim),
        ):  # fmt: skip
            yield f"layers.{layer}.{name}", rows, columns


def _tensors(
    params: dict, matrices: list, group_size: int
) -> Iterator[tuple[str, tuple[str, list[int]]]]:
    for name, rows, columns in matrices:
        yield f"{name}.weight", ("I8", [rows, columns])
        yield f"{name}.scales", ("F32", [rows, columns // group_size])
    norms = [
        f"layers.{layer}.{name}"
        for layer in range(params["n_layers"])
        for name in ("attention_norm", "ffn_norm")
    ]
    for name in [*norms, "norm"]:
        yield f"{name}.weight", ("F32", [params["dim"]])


def _values(random: np.random.Generator, dtype: str, dims: list[int]) -> bytes:
    if dtype == "I8":
        return random.integers(-8, 8, dims, dtype=np.int8).tobytes()
    # Short of 16 bits, as bfloat16's values are.
    return (random.integers(64, 128, dims) / 8192).astype(np.float32).tobytes()
