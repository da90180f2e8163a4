"""Apertus (Swiss AI, 2025): a Llama with norms of query and key heads, whose feed-forward has no
gate and an activation with learned slopes (xIELU)."""

import math
import re
from collections.abc import Mapping
from functools import partial

import numpy as np
import torch

from quatrain.checkpoint.families.family import Family, GgufReading, HuggingFaceReading
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.gguf.blocks import GgufTensor
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.rope.default_rope import rope_params_or
from quatrain.errors import InputError

_UNLIKE_LLAMA = {"feed_forward_gate": False, "act_fn": "xielu"}
_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 12000000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_SLOPES = ("alpha_p", "alpha_n", "beta")
_OF_ACTIVATION = re.compile(r"(model\.layers\.\d+\.mlp\.act_fn)\.(alpha_p|alpha_n|beta|eps)")
_DEFAULTS = {"beta": 0.5, "eps": -1e-6}  # of transformers' class
# Below 0, transformers and llama.cpp compute exp(min(x, eps)), and the backbone exp(x): a result
# differs by less than alpha_n * eps.
_LEAST_EPS = -1e-5


def _applied(numbers: Mapping[str, float], source: str) -> dict[str, float]:
    """The slopes as they are applied, of those that a file has: without softplus, and alpha_n
    without beta. Raises `InputError` if the activation is another."""
    if not _LEAST_EPS <= numbers["eps"] <= 0:
        raise InputError(
            f"{source}.eps is {numbers['eps']:g}, expected {_LEAST_EPS:g} to 0; other values are "
            "not implemented"
        )
    beta = numbers["beta"]
    softplus = {name: np.logaddexp(0.0, numbers[name]) for name in ("alpha_p", "alpha_n")}
    return {"alpha_p": softplus["alpha_p"], "alpha_n": beta + softplus["alpha_n"], "beta": beta}


def _tensors(stored: LazyTensors, fields: Fields) -> LazyTensors:
    """The numbers of activations as they are applied."""
    found = {name: match for name in stored if (match := _OF_ACTIVATION.fullmatch(name))}
    numbers: dict[str, dict[str, float]] = {}
    for name, match in found.items():
        numbers.setdefault(match[1], dict(_DEFAULTS))[match[2]] = _number(stored, name, fields)
    made = dict(stored.without(found).stored)
    for module, of_file in numbers.items():
        missing = next((name for name in _SLOPES if name not in of_file), None)
        if missing is not None:
            raise InputError(f"{fields.source}: tensor {module}.{missing} is missing")
        for name, value in _applied(of_file, f"{fields.source}: {module}").items():
            made[f"{module}.{name}"] = _one(value)
    return LazyTensors(made)


def _number(stored: LazyTensors, name: str, fields: Fields) -> float:
    tensor = stored[name]
    if tensor.numel() != 1 or not math.isfinite(tensor.item()):
        raise InputError(
            f"{fields.source}: {name} is {tensor.flatten()[:4].tolist()} of shape "
            f"{list(tensor.shape)}, expected one finite number"
        )
    return tensor.item()


def _one(value: float) -> StoredTensor:
    return StoredTensor((1,), torch.float32, lambda: torch.tensor([value], dtype=torch.float32))


def _gguf_tensors(tensors: dict[str, GgufTensor], metadata: GgufMetadata) -> dict[str, GgufTensor]:
    """The numbers of activations, which are metadata, as tensors."""
    layers, path = metadata.layer_count(), metadata.file.path
    lists = {name: _numbers(metadata, name, layers) for name in (*_SLOPES, "eps")}
    made = dict(tensors)
    for layer in range(layers):
        of_file = {name: values[layer] for name, values in lists.items()}
        for name, value in _applied(of_file, f"{path}: xielu").items():
            called = f"blk.{layer}.ffn_act.{name}"
            data = np.array([[value]], "<f4").view(np.uint8)
            made[called] = GgufTensor(called, "F32", (1,), data)
    return made


def _numbers(metadata: GgufMetadata, name: str, layers: int) -> list[float]:
    """Those of all layers."""
    found = metadata.file.metadata.get(f"xielu.{name}", _DEFAULTS.get(name))
    values = [float(found)] * layers if isinstance(found, int | float) else found
    is_list = isinstance(values, list | np.ndarray) and len(values) == layers
    if not is_list or not np.isfinite(values).all():
        raise InputError(
            f"{metadata.file.path}: xielu.{name} is {found!r:.60}, expected {layers} finite "
            "numbers, one for each layer"
        )
    return [float(value) for value in values]


APERTUS = Family(
    hugging_face=HuggingFaceReading(
        model_type="apertus",
        defaults={
            "num_attention_heads": 32,
            "vocab_size": 131072,
            "hidden_act": "xielu",
            "max_position_embeddings": 65536,
            "rms_norm_eps": 1e-5,
            "rope_theta": _ROPE["rope_theta"],
            "attention_bias": False,
        },
        params=lambda fields: {"feed_forward_gate": False},
        rope=partial(rope_params_or, default=_ROPE),
        names={
            "attention_layernorm": "attention_norm",
            "feedforward_layernorm": "ffn_norm",
            "mlp.up_proj": "feed_forward.w1",
            **{f"mlp.act_fn.{name}": f"feed_forward.activate.{name}" for name in _SLOPES},
        },
        tensors=_tensors,
        activations={"xielu": "xielu"},
    ),
    gguf=GgufReading(
        "apertus",
        half_split=True,
        params=lambda metadata: _UNLIKE_LLAMA,
        names={
            "ffn_up": "feed_forward.w1",
            **{f"ffn_act.{name}": f"feed_forward.activate.{name}" for name in _SLOPES},
        },
        tensors=_gguf_tensors,
    ),
)
