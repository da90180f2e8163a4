"""Converts tensors that mlx-lm lays out differently to transformers' layout, quantized or not.

| of | transformers | mlx-lm (`sanitize` of its models) |
|---|---|---|
| filters | [channels, 1, taps] | [channels, taps, 1] |
| norms about 0, of models with delta rules | weight | 1 + weight |
| experts | one by one, or all in one tensor | `switch_mlp`: a tensor for each kind of matrix |
"""

import re

import torch

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor, put_once
from quatrain.errors import InputError

_FILTER = re.compile(r".*\.(?:conv|conv1d)\.weight")
_NORM = re.compile(
    r".*\.(?:input_layernorm|post_attention_layernorm|q_norm|k_norm)\.weight|model\.norm\.weight"
)
_EXPERTS = re.compile(r"(.*)\.(switch_mlp|experts)\.(\w+_proj)\.(weight|scales|biases)")


def as_transformers_has_them(
    stored: LazyTensors, whole: LazyTensors, source: str
) -> tuple[LazyTensors, dict[str, str]]:
    """(`stored`, a text model's under its own names, as transformers lays it out; the name in the
    files, whose tensors are `whole`, of each, or of the one that it is part of). Raises
    `InputError`, naming `source`, if one that is of all experts is not."""
    own = {id(tensor): name for name, tensor in whole.stored.items()}
    called = {name: own.get(id(tensor), name) for name, tensor in stored.stored.items()}
    filters = {name for name, tensor in stored.stored.items() if is_mlx_filter(name, tensor)}
    # Of delta rules: state spaces have such a filter too, and norms as everywhere.
    shifted = any(name.endswith(".linear_attn.conv1d.weight") for name in filters)
    found: dict[str, StoredTensor] = {}
    for name, tensor in stored.stored.items():
        match = _EXPERTS.fullmatch(name)
        if match and _is_of_all_experts(match, stored):
            if len(tensor.shape) != 3:
                raise InputError(
                    f"{source}: {name} has shape {list(tensor.shape)}, expected a matrix for each "
                    "expert, as its weight has; download the model's files again"
                )
            for index in range(tensor.shape[0]):
                own = f"{match[1]}.experts.{index}.{match[3]}.{match[4]}"
                one = tensor.changed(lambda experts, index=index: experts[index], tensor.shape[1:])
                put_once(found, own, one, source)
                called[own] = called[name]
        elif name in filters:
            channels, taps, _ = tensor.shape
            found[name] = tensor.changed(
                lambda filters: filters.transpose(1, 2).contiguous(), (channels, 1, taps)
            )
        elif shifted and len(tensor.shape) == 1 and _NORM.fullmatch(name):
            found[name] = tensor.changed(lambda norm: norm.float() - 1.0, dtype=torch.float32)
        else:
            put_once(found, name, tensor, source)
    return LazyTensors(found), called


def is_mlx_filter(name: str, tensor: StoredTensor) -> bool:
    """Whether a tensor of a folder is a filter of each channel as mlx-lm lays it out."""
    shape = tensor.shape
    return bool(_FILTER.fullmatch(name)) and len(shape) == 3 and shape[2] == 1 != shape[1]


def _is_of_all_experts(match: re.Match[str], stored: LazyTensors) -> bool:
    """Llama 4's have the name that others' have one by one."""
    weight = stored.stored.get(f"{match[1]}.{match[2]}.{match[3]}.weight")
    if weight is None or len(weight.shape) != 3:
        return False
    return match[2] == "switch_mlp" or weight.dtype == torch.uint32
