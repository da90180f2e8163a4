"""Small models of every format, written by the formats' own libraries where they have one."""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tests.support.paths import WRITTEN_ELSEWHERE

from quatrain.quantize.methods.round_to_nearest import quantize_channels, quantize_groups

PARAMS = {
    "dim": 64,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "head_dim": 16,
    "hidden_dim": 96,
    "vocab_size": 272,
    "norm_eps": 1e-5,
    "rope_theta": 10000.0,
}

HUGGING_FACE = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 272,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": [2, 0],
}

# Of Llama 3.2, in config.json.
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

HF_NAMES = {
    "tok_embeddings": "model.embed_tokens",
    "norm": "model.norm",
    "output": "lm_head",
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "attention.q_norm_fn": "self_attn.q_norm",
    "attention.k_norm_fn": "self_attn.k_norm",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_GGUF_NAMES = {
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


def float_tensors(bias=False, qk_norm=False, tied=False, layers=2) -> dict[str, torch.Tensor]:
    """Random float32 tensors of PARAMS' shapes, by Meta name."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator) * 0.1

    tensors = {"tok_embeddings.weight": random(272, 64), "norm.weight": random(64)}
    if not tied:
        tensors["output.weight"] = random(272, 64)
    for layer in range(layers):
        shapes = {
            "attention.wq.weight": (64, 64),
            "attention.wk.weight": (32, 64),
            "attention.wv.weight": (32, 64),
            "attention.wo.weight": (64, 64),
            "feed_forward.w1.weight": (96, 64),
            "feed_forward.w2.weight": (64, 96),
            "feed_forward.w3.weight": (96, 64),
            "attention_norm.weight": (64,),
            "ffn_norm.weight": (64,),
        }
        if bias:
            shapes |= {"attention.wq.bias": (64,)}
            shapes |= {"attention.wk.bias": (32,), "attention.wv.bias": (32,)}
        if qk_norm:
            shapes |= {"attention.q_norm_fn.weight": (16,), "attention.k_norm_fn.weight": (16,)}
        tensors |= {f"layers.{layer}.{name}": random(*shape) for name, shape in shapes.items()}
    return tensors


def renamed(name: str, names: dict[str, str], layers: str) -> str:
    module, _, part = name.rpartition(".")
    if module.startswith("layers."):
        _, layer, inner = module.split(".", 2)
        return f"{layers}.{layer}.{names[inner]}.{part}"
    return f"{names[module]}.{part}"


def write_hugging_face(folder: Path, tensors=None, shards=1, dtype=torch.float32, **fields) -> Path:
    """A Hugging Face folder. `fields` replace those of config.json; None removes one."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = float_tensors() if tensors is None else tensors
    named = {
        renamed(name, HF_NAMES, "model.layers"): tensor.to(dtype)
        for name, tensor in tensors.items()
    }
    config = {key: value for key, value in {**HUGGING_FACE, **fields}.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    save_shards(named, folder, shards)
    return folder


def save_shards(named: dict[str, torch.Tensor], folder: Path, shards: int) -> None:
    """model.safetensors, or several files and their index."""
    if shards == 1:
        save_file(named, folder / "model.safetensors")
        return
    weight_map = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(named.items())[shard::shards])
        save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def write_meta(folder: Path, tensors=None, **params) -> Path:
    """A Meta folder: consolidated.00.pth and params.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = float_tensors() if tensors is None else tensors
    torch.save(tensors | {"rope.freqs": torch.ones(8)}, folder / "consolidated.00.pth")
    (folder / "params.json").write_text(json.dumps(PARAMS | params))
    return folder


def write_gguf(
    path: Path,
    tensors=None,
    architecture="llama",
    kind="F32",
    metadata=None,
    raw=None,
    tokenizer="smollm",
    extra=None,
) -> Path:
    """A GGUF file. `kind`: the type of its matrices; `raw`: name -> Q4_0 bytes to use instead;
    `extra`: tensors under their GGUF names; `metadata`: {architecture}.key -> value."""
    tensors = float_tensors() if tensors is None else tensors
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(512)
    writer.add_embedding_length(64)
    writer.add_block_count(sum(name.endswith(".ffn_norm.weight") for name in tensors) or 2)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    for key, value in (metadata or {}).items():
        if isinstance(value, str):
            writer.add_string(f"{architecture}.{key}", value)
        elif isinstance(value, float):
            writer.add_float32(f"{architecture}.{key}", value)
        else:
            writer.add_uint32(f"{architecture}.{key}", value)
    if tokenizer:
        write_tokenizer_metadata(writer, tokenizer)
    for name, tensor in tensors.items():
        gguf_name = renamed(name, _GGUF_NAMES, "blk")
        values = tensor.numpy()
        wanted = gguf.GGMLQuantizationType[kind if tensor.ndim == 2 else "F32"]
        if raw and name in raw:
            wanted, packed = gguf.GGMLQuantizationType.Q4_0, raw[name]
        else:
            packed = gguf.quants.quantize(values, wanted)
        writer.add_tensor(gguf_name, packed, raw_dtype=wanted)
    for name, tensor in (extra or {}).items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


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


def write_k_quants(path: Path) -> Path:
    """A GGUF of one Q4_K and one Q6_K tensor, the blocks ggml's own."""
    made = load_file(WRITTEN_ELSEWHERE / "k_quants.safetensors")
    writer = gguf.GGUFWriter(path, "llama")
    for kind in ("Q4_K", "Q6_K"):
        packed = made[f"{kind}.packed"].numpy()
        writer.add_tensor(f"blk.0.{kind}", packed, raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
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


def int4_tensors(group_size=32, embedding="int8", output="int4", bias=False, qk_norm=False):
    """A checkpoint's tensors in the pre-quantized layout."""
    tensors = {}
    for name, tensor in float_tensors(bias, qk_norm).items():
        module = name.removesuffix(".weight")
        method = {"tok_embeddings": embedding, "output": output}.get(module, "int4")
        if tensor.ndim == 1 or method == "fp":
            tensors[name] = tensor
            continue
        values, scales = (
            quantize_channels(tensor) if method == "int8" else quantize_groups(tensor, group_size)
        )
        tensors |= {name: values, f"{module}.scales": scales}
    return tensors


def write_checkpoint(folder: Path, tensors=None, file="model.safetensors", **params) -> Path:
    """A checkpoint folder; `file` by its suffix is safetensors or pth. None removes a param."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = int4_tensors() if tensors is None else tensors
    if file.endswith(".safetensors"):
        save_file(tensors, folder / file)
    else:
        torch.save(tensors, folder / file)
    said = {**PARAMS, "quantization_args": {"scheme": "8da4w", "group_size": 32}, **params}
    said = {name: value for name, value in said.items() if value is not None}
    (folder / "params.json").write_text(json.dumps(said))
    return folder


def q4_0_bytes(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Pack integers [N, K] in [-8, 7] and scales [N, K/32] as Q4_0: uint8 [N, K/32*18]."""
    blocks = (values.reshape(len(values), -1, 32) + 8).astype(np.uint8)
    packed = blocks[..., :16] | blocks[..., 16:] << 4
    halves = scales.astype(np.float16)[..., None].view(np.uint8)
    return np.concatenate((halves, packed), axis=-1).reshape(len(values), -1)
