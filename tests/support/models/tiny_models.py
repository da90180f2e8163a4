"""Small models: their tensors, and folders of them as Hugging Face, Meta and Quatrain have them.

GGUF files are written by `gguf_files`, other quantizers' folders by `quantized_folders`.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

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


def float_tensors(tied: bool = False, seed: int = 0, **params) -> dict[str, torch.Tensor]:
    """Random float32 tensors by Meta name, of a model of PARAMS with `params` in their place."""
    params = PARAMS | params
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}

    def add(name: str, *shape: int, around: float = 0) -> None:
        spread = 0.1 if len(shape) == 1 else shape[1] ** -0.5
        tensors[name] = around + torch.randn(shape, generator=generator) * spread

    dim, vocab = params["dim"], params["vocab_size"]
    add("norm.weight", dim, around=1)
    add("tok_embeddings.weight", vocab, dim)
    if not tied:
        add("output.weight", vocab, dim)
    for layer in range(params["n_layers"]):
        for name, shape in _layer_shapes(params).items():
            add(f"layers.{layer}.{name}", *shape, around=int("norm" in name))
    return tensors


def _layer_shapes(params: dict) -> dict[str, tuple[int, ...]]:
    dim, hidden = params["dim"], params["hidden_dim"]
    head = params.get("head_dim") or dim // params["n_heads"]
    rows = {"wq": params["n_heads"] * head, "wk": params["n_kv_heads"] * head}
    rows |= {"wv": rows["wk"]}
    shapes: dict[str, tuple[int, ...]] = {
        f"attention.{name}.weight": (count, dim) for name, count in rows.items()
    }
    shapes |= {
        "attention.wo.weight": (dim, rows["wq"]),
        "feed_forward.w1.weight": (hidden, dim),
        "feed_forward.w2.weight": (dim, hidden),
        "feed_forward.w3.weight": (hidden, dim),
        "attention_norm.weight": (dim,),
        "ffn_norm.weight": (dim,),
    }
    if params.get("attention_qkv_bias"):
        shapes |= {f"attention.{name}.bias": (count,) for name, count in rows.items()}
    if params.get("use_qk_norm"):
        shapes |= {f"attention.{name}_norm_fn.weight": (head,) for name in "qk"}
    return shapes


def int4_tensors(
    group_size: int = 32, embedding: str = "int8", output: str = "int4", seed: int = 0, **params
) -> dict[str, torch.Tensor]:
    """`float_tensors` in the pre-quantized layout. `embedding` and `output`: "int4", "int8" or
    "fp"; an output "tied" is the embedding's."""
    tensors = {}
    for name, tensor in float_tensors(output == "tied", seed, **params).items():
        module = name.removesuffix(".weight")
        method = {"tok_embeddings": embedding, "output": output}.get(module, "int4")
        if tensor.ndim == 1 or method == "fp":
            tensors[name] = tensor
            continue
        int8 = method == "int8"
        values, scales = quantize_channels(tensor) if int8 else quantize_groups(tensor, group_size)
        tensors |= {name: values, f"{module}.scales": scales}
    return tensors


def renamed(name: str, names: dict[str, str], layers: str) -> str:
    module, _, part = name.rpartition(".")
    if module.startswith("layers."):
        _, layer, inner = module.split(".", 2)
        return f"{layers}.{layer}.{names[inner]}.{part}"
    return f"{names[module]}.{part}"


def write_hugging_face(
    folder: Path, tensors=None, shards=1, dtype: torch.dtype | None = torch.float32, **fields
) -> Path:
    """A Hugging Face folder. `fields` replace those of config.json; None removes one. `dtype`: None
    keeps each tensor's own."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = float_tensors() if tensors is None else tensors
    named = {
        renamed(name, HF_NAMES, "model.layers"): tensor.to(dtype or tensor.dtype)
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
