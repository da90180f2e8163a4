"""Shared parts of families with state spaces (Mamba-2)."""

import math
from dataclasses import replace
from typing import Any

import torch

from quatrain.checkpoint.families.family import Params
from quatrain.checkpoint.families.qwen3_5.gguf import logarithm
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.gguf.blocks import GgufTensor
from quatrain.checkpoint.gguf.metadata import GgufMetadata
from quatrain.checkpoint.hugging_face.fields import Fields
from quatrain.checkpoint.hugging_face.tensors.fused_rows import rows_apart
from quatrain.checkpoint.hugging_face.tensors.tensor_names import gated_names
from quatrain.linear.affine import dequantize_untraced

_MIXED = "in_proj"  # one matrix in the files
_TIME = "in_proj_dt"
_PARTS = (
    "in_proj_z", "in_proj_xBC", _TIME, "conv1d", "A_log", "D", "dt_bias", "norm", "out_proj",
)  # fmt: skip
NAMES = {f"mamba.{part}": f"mamba.{part}" for part in _PARTS}
# Of Falcon-H1 and Bamba.
NAMES_BEFORE_FEED_FORWARD = {
    "model.final_layernorm": "norm",
    "pre_ff_layernorm": "ffn_norm",
    **gated_names("feed_forward"),
}
DEFAULTS = {
    "mamba_n_heads": 128,
    "mamba_n_groups": 1,
    "mamba_d_state": 256,
    "mamba_d_head": "auto",
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_conv_bias": True,
    "mamba_proj_bias": False,
    "time_step_limit": (0.0, math.inf),
}


def params(fields: Fields, width: int) -> Params:
    """The fields of params.json of config.json's `mamba_...`, for state spaces of `width` channels.

    Raises `InputError` where a time step is limited: transformers limits it in prompts alone.
    """
    heads = fields.integer("mamba_n_heads")
    each = width // heads if fields.get("mamba_d_head") == "auto" else None
    each = each or fields.integer("mamba_d_head")
    if heads * each != width:
        raise fields.refusal("mamba_d_head", f"{width} channels divided by {heads} heads")
    return _params(
        fields, heads, each, state="mamba_d_state", groups="mamba_n_groups", kernel="mamba_d_conv",
        filter_bias="mamba_conv_bias", bias="mamba_proj_bias",
    )  # fmt: skip


def params_of_expanded(fields: Fields) -> Params:
    """As `params`, for as many channels as the stream has, `mamba_expand` times."""
    return params(fields, fields.integer("mamba_expand") * fields.integer("hidden_size"))


def params_of_heads(fields: Fields, heads: str, width: str, state: str) -> Params:
    """As `params`, of files that name their fields otherwise, of which `heads`, `width` of a head
    and size of the `state` differ."""
    return _params(
        fields, fields.integer(heads), fields.integer(width), state=state, groups="n_groups",
        kernel="conv_kernel", filter_bias="use_conv_bias", bias="use_bias",
    )  # fmt: skip


def _params(
    fields: Fields, heads: int, width: int, *, state: str, groups: str, kernel: str,
    filter_bias: str, bias: str,
) -> Params:  # fmt: skip
    """Of `heads` of that `width`, and of the fields with those names."""
    if not _is_unlimited(fields.get("time_step_limit")):
        expected = "[0.0, Infinity]: time steps with limits are not implemented"
        raise fields.refusal("time_step_limit", expected)
    biased = fields.flag(bias)
    return {
        "mamba_num_heads": heads,
        "mamba_head_dim": width,
        "mamba_state_size": fields.integer(state),
        "mamba_n_groups": fields.integer(groups),
        "mamba_conv_kernel": fields.integer(kernel, least=2),
        "mamba_conv_bias": fields.flag(filter_bias),
        "mamba_in_bias": biased,
        "mamba_out_bias": biased,
    }


def _is_unlimited(limits: Any) -> bool:
    # transformers 5 writes an infinite number as an object.
    endless = (math.inf, {"__float__": "Infinity"})
    two = isinstance(limits, list | tuple) and len(limits) == 2
    return two and limits[0] == 0 and limits[1] in endless


def tensors(stored: LazyTensors, params: Params, source: str) -> LazyTensors:
    """`stored` with what reads the stream in three matrices, of which that of time steps is in
    floating point. `params`: as of `params`."""
    rows = {_MIXED: rows_of_parts(params)}
    apart = rows_apart(stored, rows, source)
    found: dict[str, StoredTensor] = {}
    for name, tensor in apart.stored.items():
        linear, _, kind = name.rpartition(".")
        scales, zeros = (apart.stored.get(f"{linear}.{part}") for part in ("scales", "zeros"))
        if not linear.endswith(f".{_TIME}") or scales is None or kind == "bias":
            found[name] = tensor
        elif kind == "weight":
            found[name] = _in_floating_point(tensor, scales, zeros)
    return LazyTensors(found)


def _in_floating_point(
    integers: StoredTensor, scales: StoredTensor, zeros: StoredTensor | None
) -> StoredTensor:
    def load(values: torch.Tensor) -> torch.Tensor:
        of_groups = scales.load().float().reshape(len(values), -1)
        none = torch.zeros_like(of_groups) if zeros is None else zeros.load().float()
        size = values.shape[1] // of_groups.shape[1]
        points = none.reshape(of_groups.shape)
        return dequantize_untraced(values, of_groups, points, size, torch.float32)

    return integers.changed(load, dtype=torch.float32)


def rows_of_parts(params: Params) -> dict[str, int]:
    """The rows of each part of what reads the stream."""
    heads = params["mamba_num_heads"]
    inner = heads * params["mamba_head_dim"]
    groups = params["mamba_n_groups"] * params["mamba_state_size"]
    return {"in_proj_z": inner, "in_proj_xBC": inner + 2 * groups, _TIME: heads}


GGUF_NAMES = {
    **{part: f"mamba.{part}" for part in ("in_proj_z", "in_proj_xBC", _TIME)},
    "ssm_conv1d": "mamba.conv1d",
    "ssm_a": "mamba.A_log",
    "ssm_d": "mamba.D",
    "ssm_dt.bias": "mamba.dt_bias",
    "ssm_norm": "mamba.norm",
    "ssm_out": "mamba.out_proj",
}
FILTERS = frozenset({"ssm_conv1d"})


def gguf_params(metadata: GgufMetadata) -> Params:
    """As `params`, of a GGUF file. llama.cpp's state spaces have a convolution with a bias, and no
    other."""
    heads, inner = metadata.count("ssm.time_step_rank"), metadata.count("ssm.inner_size")
    if inner % heads:
        raise metadata.refuse("ssm.inner_size", f"expected a multiple of {heads} heads")
    return {
        "mamba_num_heads": heads,
        "mamba_head_dim": inner // heads,
        "mamba_state_size": metadata.count("ssm.state_size"),
        "mamba_n_groups": metadata.count("ssm.group_count"),
        "mamba_conv_kernel": metadata.count("ssm.conv_kernel"),
        "mamba_conv_bias": metadata.has_tensors("ssm_conv1d.bias"),
    }


def gguf_fused(metadata: GgufMetadata) -> dict[str, dict[str, int]]:
    """As `GgufReading.fused`: how many rows of the matrix that reads the stream each part has."""
    return {"ssm_in": rows_of_parts(gguf_params(metadata))}


def gguf_tensors(tensors: dict[str, GgufTensor], metadata: GgufMetadata) -> dict[str, GgufTensor]:
    """What decays as its logarithm; what has a number for each head, or a norm by groups, in one
    dimension."""
    found: dict[str, GgufTensor] = {}
    for name, tensor in tensors.items():
        kind = name.rpartition(".ssm_")[2]
        if kind in ("a", "d", "norm.weight") and len(tensor.shape) == 2:
            one_row = tensor.data.reshape(1, -1)
            tensor = replace(tensor, shape=(math.prod(tensor.shape),), data=one_row)
        found[name] = logarithm(tensor, metadata) if kind == "a" else tensor
    return found
