"""Qwen 3.5, dense, in a GGUF file."""

import re
from dataclasses import dataclass, replace

import numpy as np

from quatrain.checkpoint.families.family import GgufReading, Params
from quatrain.checkpoint.families.qwen3_5.hugging_face import DELTA, INTERVAL
from quatrain.checkpoint.gguf.blocks import GgufTensor, dequantizer
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.nth_layers import FULL, full_every
from quatrain.errors import InputError

_LAYER = re.compile(r"blk\.(\d+)\.(.+)")
QUERIES, _GATE, DECAY = "attn_q.weight", "attn_q_gate", "ssm_a"


@dataclass(frozen=True)
class _ValueHeads:
    """Where a tensor has something for each value head: along its rows (0) or columns (-1), behind
    queries and keys or not, a number for each channel or one."""

    axis: int
    after_keys: bool = False
    whole: bool = True


_VALUE_HEADS = {
    "attn_qkv.weight": _ValueHeads(0, after_keys=True),
    "ssm_conv1d.weight": _ValueHeads(0, after_keys=True),
    "attn_gate.weight": _ValueHeads(0),
    "ssm_alpha.weight": _ValueHeads(0, whole=False),
    "ssm_beta.weight": _ValueHeads(0, whole=False),
    DECAY: _ValueHeads(-1, whole=False),
    "ssm_dt.bias": _ValueHeads(-1, whole=False),
    "ssm_out.weight": _ValueHeads(-1),
}


def params(metadata: GgufMetadata) -> Params:
    """As `GgufReading.params`: the delta rules' heads, by llama.cpp's keys of state spaces."""
    heads = metadata.count("ssm.time_step_rank")
    values = metadata.count("ssm.inner_size")
    if values % heads:
        raise metadata.refuse("ssm.inner_size", f"expected a multiple of {heads} heads")
    if metadata.get("ssm.v_head_reordered") is False:  # of Ollama's files
        raise metadata.refuse(
            "ssm.v_head_reordered", "expected true, the only order that llama.cpp implements"
        )
    return metadata.rotated_part() | {
        "layer_types": _layer_types(metadata),
        "linear_num_key_heads": metadata.count("ssm.group_count"),
        "linear_num_value_heads": heads,
        "linear_key_head_dim": metadata.count("ssm.state_size"),
        "linear_value_head_dim": values // heads,
        "linear_conv_kernel_dim": metadata.count("ssm.conv_kernel"),
        "use_qk_norm": True,
        "use_attn_o_gate": True,
    }


def _layer_types(metadata: GgufMetadata) -> list[str]:
    layers = metadata.layer_count()
    key = "attention.recurrent_layers"
    recurrent = metadata.get(key)
    if recurrent is None:
        interval = metadata.count("full_attention_interval", INTERVAL)
        return full_every(interval, layers, DELTA)
    if not isinstance(recurrent, np.ndarray) or len(recurrent) < layers:
        raise metadata.refuse(key, f"expected {layers} booleans, one for each layer")
    return [DELTA if each else FULL for each in recurrent[:layers]]


def tensors(tensors: dict[str, GgufTensor], metadata: GgufMetadata) -> dict[str, GgufTensor]:
    """Queries and gates apart; value heads that read the same keys side by side, which in the file
    come once for all keys, again and again; what decays as its logarithm."""
    found: dict[str, GgufTensor] = {}
    for name, tensor in tensors.items():
        match = _LAYER.fullmatch(name)
        kind = match[2] if match else ""
        if kind == QUERIES:
            found |= queries_and_gate(tensor, metadata)
        elif kind in _VALUE_HEADS:
            ordered = _side_by_side(tensor, kind, metadata)
            found[name] = logarithm(ordered, metadata) if kind == DECAY else ordered
        else:
            found[name] = tensor
    return found


def queries_and_gate(tensor: GgufTensor, metadata: GgufMetadata) -> dict[str, GgufTensor]:
    """By their names, each head's queries and gate, which lie side by side. Raises `InputError` if
    they are not as many."""
    heads, width = metadata.count("attention.head_count"), metadata.head_dim()
    rows = tensor.shape[0]
    if rows != 2 * heads * width:
        raise InputError(
            f"{metadata.file.path}: {tensor.name} has {rows} rows, expected {2 * heads * width}"
        )
    halves = np.arange(rows).reshape(heads, 2, width)
    names = tensor.name, tensor.name.replace(QUERIES, f"{_GATE}.weight")
    return {
        name: replace(
            tensor, name=name, shape=(rows // 2, *tensor.shape[1:]), rows=halves[:, index].ravel()
        )
        for index, name in enumerate(names)
    }


def _side_by_side(tensor: GgufTensor, kind: str, metadata: GgufMetadata) -> GgufTensor:
    along = _VALUE_HEADS[kind]
    heads, keys = metadata.count("ssm.time_step_rank"), metadata.count("ssm.group_count")
    if heads % keys:
        raise metadata.refuse("ssm.time_step_rank", f"expected a multiple of {keys} key heads")
    width = metadata.count("ssm.inner_size") // heads if along.whole else 1
    first = 2 * keys * metadata.count("ssm.state_size") if along.after_keys else 0
    channels = tensor.shape[along.axis]
    if channels != first + heads * width:
        return tensor  # its shape is refused
    values = np.arange(first, channels).reshape(heads // keys, keys, width).swapaxes(0, 1)
    order = np.concatenate((np.arange(first), values.ravel()))
    return replace(tensor, rows=order) if along.axis == 0 else replace(tensor, columns=order)


def logarithm(tensor: GgufTensor, metadata: GgufMetadata) -> GgufTensor:
    """What the file has -exp of. Raises `InputError` if that is not below 0."""
    values = dequantizer(tensor)().numpy()
    if not (values < 0).all():
        raise InputError(
            f"{metadata.file.path}: {tensor.name} has decay rates of 0 or more, expected negative "
            "ones; the file is damaged"
        )
    logarithm = np.log(-values).astype("<f4").reshape(1, -1)
    return GgufTensor(tensor.name, "F32", tensor.shape, logarithm.view(np.uint8))


FILTERS = frozenset({"ssm_conv1d"})
NAMES = {
    "post_attention_norm": "ffn_norm",
    _GATE: "attention.og",
    "attn_qkv": "attention.in_proj_qkv",
    "attn_gate": "attention.in_proj_z",
    "ssm_alpha": "attention.in_proj_a",
    "ssm_beta": "attention.in_proj_b",
    "ssm_conv1d": "attention.conv1d",
    "ssm_a": "attention.A_log",
    "ssm_dt.bias": "attention.dt_bias",
    "ssm_norm": "attention.norm",
    "ssm_out": "attention.out_proj",
}

GGUF = GgufReading(
    "qwen35",
    half_split=True,
    params=params,
    names=NAMES,
    filters=FILTERS,
    tensors=tensors,
)
