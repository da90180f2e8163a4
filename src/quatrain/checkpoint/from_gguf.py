"""Opens a GGUF model: which of its metadata and names mean what in Meta's naming."""

import re
from pathlib import Path
from typing import Any

import torch

from quatrain.backbone.config import config_from_params
from quatrain.checkpoint.float_model import FloatModel, checked, params_of, usual_context
from quatrain.checkpoint.gguf_file import GgufFile, q4_0_blocks, read_gguf
from quatrain.checkpoint.gguf_tokenizer import eos_ids, tokenizer_files_from_gguf
from quatrain.errors import InputError

# architecture -> whether its Q/K rows are in half-split order (interleaved otherwise)
_ARCHITECTURES = {"llama": False, "qwen2": True, "qwen3": True}

_NAMES = {
    "token_embd": "tok_embeddings",
    "output_norm": "norm",
    "output": "output",
    "attn_q": "attention.wq",
    "attn_k": "attention.wk",
    "attn_v": "attention.wv",
    "attn_output": "attention.wo",
    "attn_q_norm": "attention.q_norm_fn",
    "attn_k_norm": "attention.k_norm_fn",
    "attn_norm": "attention_norm",
    "ffn_norm": "ffn_norm",
    "ffn_gate": "feed_forward.w1",
    "ffn_down": "feed_forward.w2",
    "ffn_up": "feed_forward.w3",
}
_NAME = re.compile(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)")
_ROPE_FACTORS = "rope_freqs.weight"

# Metadata that changes what the model computes and that the backbone does not implement, with
# the values that change nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "expert_count": (0,),
    "rope.scaling.type": ("none",),
    "rope.scale_linear": (1.0,),
    "attention.scale": (0.0,),
    "attention.clamp_kqv": (0.0,),
    "logit_scale": (0.0, 1.0),
    "residual_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
}


def open_gguf_model(path: Path) -> FloatModel:
    """Open the GGUF file `path` as a `FloatModel`."""
    file = read_gguf(path)
    names = {name: _meta_name(name) for name in file.tensors if name != _ROPE_FACTORS}
    tensors = file.float_tensors().renamed(names)
    metadata = _Metadata(file)
    params = _params(file, metadata, set(names.values()))
    config = config_from_params(params, str(path))
    trained_context = metadata.number("context_length", 2048)
    bos_id = file.metadata.get("tokenizer.ggml.bos_token_id")
    return checked(
        FloatModel(
            source=path,
            tensors=tensors,
            config=config,
            params=params_of(config, trained_context, bos_id, eos_ids(file.metadata)),
            write_tokenizer=lambda folder: tokenizer_files_from_gguf(file.metadata, path, folder),
            int4_blocks={
                names[name]: lambda tensor=tensor: q4_0_blocks(tensor)
                for name, tensor in file.tensors.items()
                if tensor.type_name == "Q4_0" and name in names
            },
        )
    )


def _meta_name(name: str) -> str:
    match = _NAME.fullmatch(name)
    if not match or match[2] not in _NAMES:
        return name  # reported by name as not known, later
    layer = f"layers.{match[1]}." if match[1] else ""
    return f"{layer}{_NAMES[match[2]]}.{match[3]}"


class _Metadata:
    """Looks up `{architecture}.{key}`, checking types."""

    def __init__(self, file: GgufFile):
        self.file = file
        self.architecture = str(file.metadata.get("general.architecture"))
        if self.architecture not in _ARCHITECTURES:
            raise InputError(
                f"{file.path}: its architecture is {self.architecture}, "
                f"expected one of {', '.join(_ARCHITECTURES)}"
            )
        for key, neutral in _NEUTRAL.items():
            value = self.get(key)
            if value is not None and value not in neutral:
                raise InputError(
                    f"{file.path}: {self.architecture}.{key} is {value!r}, "
                    "which this backbone does not implement"
                )

    def get(self, key: str) -> Any:
        return self.file.metadata.get(f"{self.architecture}.{key}")

    def number(self, key: str, default: Any = None) -> Any:
        value = self.get(key)
        if value is None:
            value = default
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InputError(
                f"{self.file.path}: the metadata '{self.architecture}.{key}' is {value!r}, "
                "expected a number; the file is not a language model's, or is damaged"
            )
        return value


def _params(file: GgufFile, metadata: _Metadata, names: set[str]) -> dict[str, Any]:
    dim, heads = metadata.number("embedding_length"), metadata.number("attention.head_count")
    head_dim = metadata.number("attention.key_length", dim // heads if heads else 0)
    for key in ("attention.value_length", "rope.dimension_count"):
        if metadata.number(key, head_dim) != head_dim:
            raise InputError(
                f"{file.path}: {metadata.architecture}.{key} is {metadata.get(key)}, expected "
                f"the head dimension {head_dim}; partial rotary embedding is not implemented"
            )
    trained_context = metadata.number("context_length", 2048)
    window = metadata.get("attention.sliding_window")
    if window and window < trained_context:
        raise InputError(
            f"{file.path}: attends to a sliding window of {window} tokens, "
            "which this backbone does not implement"
        )
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise InputError(f"{file.path}: tensor token_embd.weight is missing")
    params = {
        "dim": dim,
        "n_layers": metadata.number("block_count"),
        "n_heads": heads,
        "n_kv_heads": metadata.number("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "hidden_dim": metadata.number("feed_forward_length"),
        "vocab_size": embedding.shape[0],
        "norm_eps": metadata.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": metadata.number("rope.freq_base", 10000.0),
        "use_hf_rope": _ARCHITECTURES[metadata.architecture],
        "attention_qkv_bias": "layers.0.attention.wq.bias" in names,
        "use_qk_norm": "layers.0.attention.q_norm_fn.weight" in names,
        "max_seq_len": usual_context(trained_context),
    }
    # Written as float32: 9.999999747378752e-06 was 1e-05.
    for name in ("norm_eps", "rope_theta"):
        params[name] = float(f"{params[name]:.7g}")
    if _ROPE_FACTORS in file.tensors:
        params |= _llama3_scaling(file, params["rope_theta"], head_dim)
    return params


def _llama3_scaling(file: GgufFile, theta: float, head_dim: int) -> dict[str, Any]:
    """Llama 3.1's frequency scaling, recognised from the divisors that a GGUF holds instead.

    `rope_freqs.weight` [head_dim/2] is 1 for the short wavelengths and the scale factor for the
    long ones. The other three figures are those of every Llama 3.1 to 3.3; where the divisors
    do not follow from them the model is refused.
    """
    found = file.float_tensors()[_ROPE_FACTORS].double()
    scaling = {
        "use_scaled_rope": True,
        "rope_scale_factor": float(found.max()),
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    expected = _llama3_divisors(scaling, theta, head_dim)
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-3):
        raise InputError(
            f"{file.path}: {_ROPE_FACTORS} is not Llama 3.1's frequency scaling, "
            "and no other is implemented; use the model's Hugging Face folder"
        )
    return scaling


def _llama3_divisors(scaling: dict[str, Any], theta: float, head_dim: int) -> torch.Tensor:
    frequencies = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    turns = scaling["original_max_position_embeddings"] * frequencies / (2 * torch.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    smooth = ((turns - low) / (high - low)).clamp(0, 1)
    return 1 / (smooth + (1 - smooth) / scaling["rope_scale_factor"])
