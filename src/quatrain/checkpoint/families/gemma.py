"""Gemma 2 and the text model of Gemma 3: norms after attention and feed-forward too, soft caps
(Gemma 2), QK norm and another rotary embedding in sliding-window layers (Gemma 3)."""

from typing import Any

import torch

from quatrain.checkpoint.families.family import Family, Fields, layer_count, number
from quatrain.checkpoint.families.rope import rope_params
from quatrain.checkpoint.tensors import LazyTensors, StoredTensor
from quatrain.errors import InputError

_NAMES = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffn_norm",
}
_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_approx", "gelu": "gelu"}


def _tensors(stored: LazyTensors, fields: Fields, source: str) -> LazyTensors:
    """A Gemma norm multiplies by 1 + weight; the backbone's by weight."""
    return LazyTensors(
        {
            name: _plus_one(tensor) if name.endswith("norm.weight") else tensor
            for name, tensor in stored.stored.items()
        }
    )


def _plus_one(tensor: StoredTensor) -> StoredTensor:
    return StoredTensor(tensor.shape, torch.float32, lambda: tensor.load().float() + 1.0)


def _params(fields: Fields, source: str, pattern: int) -> dict[str, Any]:
    if fields.get("use_bidirectional_attention"):
        raise InputError(f"{source}: use_bidirectional_attention is not implemented")
    layers = layer_count(fields, source)
    pattern = fields.get("sliding_window_pattern") or pattern
    kinds = fields.get("layer_types") or [
        "sliding_attention" if (index + 1) % pattern else "full_attention"
        for index in range(layers)
    ]
    return {
        "embedding_scale_factor": number(fields, "hidden_size", source) ** 0.5,
        "attention_multiplier": number(fields, "query_pre_attn_scalar", source) ** -0.5,
        "post_attention_norm": True,
        "post_ffn_norm": True,
        "sliding_window": number(fields, "sliding_window", source),
        "layer_types": kinds,
        "attn_logit_softcapping": fields.get("attn_logit_softcapping"),
        "output_soft_cap_temp": fields.get("final_logit_softcapping"),
    }


def _gemma2(fields: Fields, source: str) -> dict[str, Any]:
    return _params(fields, source, pattern=2)


def _gemma3(fields: Fields, source: str) -> dict[str, Any]:
    by_layer = fields.get("rope_parameters") or {}
    if "full_attention" in by_layer:
        rope = rope_params({"rope_parameters": by_layer["full_attention"]}, source)
        local = number(by_layer["sliding_attention"], "rope_theta", source)
    else:  # before transformers 5
        rope = rope_params({"rope_theta": 1e6, **fields}, source)
        local = fields.get("rope_local_base_freq", 10000.0)
    return _params(fields, source, pattern=6) | rope | {"local_rope_theta": local}


GEMMA2 = Family(_gemma2, _NAMES, _tensors, _ACTIVATIONS)
GEMMA3 = Family(_gemma3, _NAMES, _tensors, _ACTIVATIONS)
