"""GGUF files of small models, written by the gguf package."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import load_file
from tests.support.models.tiny_models import float_tensors, renamed
from tests.support.paths import WRITTEN_ELSEWHERE

GGUF_NAMES = {
    "tok_embeddings": "token_embd",
    "norm": "output_norm",
    "output": "output",
    "attention.wq": "attn_q",
    "attention.wk": "attn_k",
    "attention.wv": "attn_v",
    "attention.wo": "attn_output",
    "attention.q_norm_fn": "attn_q_norm",
    "attention.k_norm_fn": "attn_k_norm",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
    "attention_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
}


@contextmanager
def gguf_file(path: Path, architecture: str = "llama") -> Iterator[gguf.GGUFWriter]:
    """A writer whose metadata and tensors are in the file `path` once the block ends."""
    writer = gguf.GGUFWriter(path, architecture)
    yield writer
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_gguf(
    path: Path,
    tensors=None,
    architecture="llama",
    kind="F32",
    metadata=None,
    raw=None,
    raw_kind="Q4_0",
    tokenizer="smollm",
    extra=None,
) -> Path:
    """A GGUF file. `kind`: the type of its matrices; `raw`: name -> bytes of the type
    `raw_kind` to use instead; `extra`: tensors under their GGUF names; `metadata`:
    {architecture}.key -> value, or general.key -> value."""
    tensors = float_tensors() if tensors is None else tensors
    with gguf_file(path, architecture) as writer:
        _add_figures(writer, tensors, architecture, metadata or {})
        if tokenizer:
            write_tokenizer_metadata(writer, tokenizer)
        for name, tensor in tensors.items():
            wanted = gguf.GGMLQuantizationType[kind if tensor.ndim == 2 else "F32"]
            if raw and name in raw:
                wanted, packed = gguf.GGMLQuantizationType[raw_kind], raw[name]
            else:
                packed = gguf.quants.quantize(tensor.numpy(), wanted)
            writer.add_tensor(renamed(name, GGUF_NAMES, "blk"), packed, raw_dtype=wanted)
        for name, tensor in (extra or {}).items():
            writer.add_tensor(name, tensor.numpy())
    return path


def _add_figures(writer: gguf.GGUFWriter, tensors, architecture: str, metadata: dict) -> None:
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_block_count(sum(name.endswith(".ffn_norm.weight") for name in tensors) or 2)
    writer.add_feed_forward_length(_hidden_dim(tensors))
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in metadata.items():
        whole = key if key.startswith("general.") else f"{architecture}.{key}"
        if isinstance(value, list):
            writer.add_array(whole, value)
        elif isinstance(value, str):
            writer.add_string(whole, value)
        elif isinstance(value, float):
            writer.add_float32(whole, value)
        else:
            writer.add_uint32(whole, value)


def _hidden_dim(tensors) -> int:
    return next((len(t) for name, t in tensors.items() if name.endswith(".w1.weight")), 96)


def write_gguf_gemma2(path: Path) -> Path:
    """A GGUF with norms behind attention and feed-forward, a window and soft caps."""
    norms = {
        f"blk.{layer}.post_{part}_norm.weight": torch.ones(64)
        for layer in range(2)
        for part in ("attention", "ffw")
    }
    figures = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
    figures |= {"attention.sliding_window": 64}
    return write_gguf(path, float_tensors(tied=True), "gemma2", metadata=figures, extra=norms)


def write_gguf_phi3(path: Path) -> Path:
    """A GGUF whose Q, K and V are one tensor, gate and up another, with LongRoPE."""
    tensors = float_tensors(tied=True)
    fused = {f"rope_factors_{which}.weight": torch.ones(6) for which in ("short", "long")}
    for layer in range(2):
        at = f"layers.{layer}"
        qkv = [tensors.pop(f"{at}.attention.w{part}.weight") for part in "qkv"]
        gate_up = [tensors.pop(f"{at}.feed_forward.w{part}.weight") for part in "13"]
        fused |= {
            f"blk.{layer}.attn_qkv.weight": torch.cat(qkv),
            f"blk.{layer}.ffn_up.weight": torch.cat(gate_up),
        }
    figures = {"rope.dimension_count": 12, "rope.scaling.original_context_length": 64}
    figures |= {"attention.sliding_window": 0}
    return write_gguf(path, tensors, "phi3", metadata=figures, extra=fused)


def write_k_quants(path: Path, names: dict[str, str]) -> Path:
    """A GGUF of tensors in blocks that ggml itself wrote (written_elsewhere/make_k_quants.py):
    `names`, by type."""
    made = load_file(WRITTEN_ELSEWHERE / "k_quants.safetensors")
    with gguf_file(path) as writer:
        for kind, name in names.items():
            packed = made[f"{kind}.packed"].numpy()
            writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType[kind])
    return path


def byte_alphabet() -> list[str]:
    """The 256 characters that stand for bytes in a GPT-2 byte-level vocabulary."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = iter(range(256, 512))
    return [chr(byte if byte in shown else next(hidden)) for byte in range(256)]


def write_tokenizer_metadata(writer: gguf.GGUFWriter, pre: str, **values) -> None:
    """272 tokens: three control, one user-defined, the bytes, and a dozen merges."""
    merges = [
        "h e",
        "l l",
        "he ll",
        "hell o",
        "Ġ w",
        "Ġw o",
        "1 2",
        "1 3",
        "' s",
        "Ġ Ġ",
        "e r",
        "t h",
    ]
    tokens = ["<|pad|>", "<|start|>", "<|stop|>", "<user>", *byte_alphabet()]
    tokens += [merge.replace(" ", "") for merge in merges]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, 4] + [1] * 268)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(
        "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}{% endfor %}"
    )
    if "add_bos" in values:
        writer.add_add_bos_token(values["add_bos"])


def q4_0_bytes(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Pack integers [N, K] in [-8, 7] and scales [N, K/32] as Q4_0: uint8 [N, K/32*18]."""
    blocks = (values.reshape(len(values), -1, 32) + 8).astype(np.uint8)
    packed = blocks[..., :16] | blocks[..., 16:] << 4
    halves = scales.astype(np.float16)[..., None].view(np.uint8)
    return np.concatenate((halves, packed), axis=-1).reshape(len(values), -1)
