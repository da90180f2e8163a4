"""Phi-3 and Phi-4-mini: LongRoPE on part of each head; Q, K and V in one tensor, gate and up
in another."""

import re
from typing import Any

from quatrain.checkpoint.families.family import Family, Fields, number, sliding_window
from quatrain.checkpoint.tensors import LazyTensors, StoredTensor
from quatrain.errors import InputError

# A quantized matrix is cut as a floating-point one is: by rows, which its scales have too.
_FUSED = re.compile(r"(.*)\.(qkv_proj|gate_up_proj)\.(weight|scales|zeros)")


def _tensors(stored: LazyTensors, fields: Fields, source: str) -> LazyTensors:
    heads = number(fields, "num_attention_heads", source)
    keys = fields.get("num_key_value_heads") or heads
    head_dim = fields.get("head_dim") or number(fields, "hidden_size", source) // heads
    hidden = number(fields, "intermediate_size", source)
    parts = {
        "qkv_proj": {"q_proj": heads * head_dim, "k_proj": keys * head_dim,
                     "v_proj": keys * head_dim},
        "gate_up_proj": {"gate_proj": hidden, "up_proj": hidden},
    }  # fmt: skip
    apart: dict[str, StoredTensor] = {}
    for name, tensor in stored.stored.items():
        match = _FUSED.fullmatch(name)
        if not match:
            apart[name] = tensor
            continue
        rows = parts[match[2]]
        if tensor.shape[0] != sum(rows.values()):
            raise InputError(
                f"{source}: {name} has {tensor.shape[0]} rows, expected {sum(rows.values())}"
            )
        first = 0
        for part, count in rows.items():
            apart[f"{match[1]}.{part}.{match[3]}"] = _rows(tensor, first, count)
            first += count
    return LazyTensors(apart)


def _rows(tensor: StoredTensor, first: int, count: int) -> StoredTensor:
    shape = (count, *tensor.shape[1:])
    return StoredTensor(shape, tensor.dtype, lambda: tensor.load()[first : first + count])


def _params(fields: Fields, source: str) -> dict[str, Any]:
    return sliding_window(fields, source)


PHI = Family(params=_params, tensors=_tensors)
