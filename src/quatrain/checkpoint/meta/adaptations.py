"""Tensors of Meta's quantized Llama 3.2 releases in addition to int4 linears.

QLoRA: beside a linear F, `F.adaptor.A.weight` [rank, K] and `F.adaptor.B.weight` [N, rank], and
`lora_args` with rank and scale in params.json: `y = F(x) + scale * B(A(x))`. SpinQuant:
`spinquant` in params.json's `quantization_args`, for a Hadamard rotation before each down
projection. (Meta's `llama_models`, quantize_impls and its loader; ExecuTorch's
`source_transformation/lora.py` and `spin_quant.py`.)
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.errors import InputError

_ADAPTOR = re.compile(r"(.+)\.adaptor\.([AB])\.weight")


def with_folded_scale(
    tensors: LazyTensors, params: dict[str, Any], source: str
) -> tuple[LazyTensors, dict[str, Any]]:
    """(the tensors, each B times the adaptors' scale, in float32; params whose scale is 1).

    A power of two, as Meta's 2, changes no bit of what B can say. Raises `InputError` if adaptors
    and `lora_args` do not come together, or do not fit each other.
    """
    adaptors = [match for match in map(_ADAPTOR.fullmatch, tensors) if match]
    arguments = params.get("lora_args")
    if arguments is None and not adaptors:
        return tensors, params
    rank, scale = _rank_and_scale(arguments, source)
    if not adaptors:
        raise InputError(f"{source}: params.json has lora_args, but the file has no adaptors")
    stored = dict(tensors.stored)
    for match in adaptors:
        name, part = match[0], match[2]
        shape = stored[name].shape
        if len(shape) != 2 or shape["AB".index(part)] != rank:
            raise InputError(
                f"{source}: {name} has shape {list(shape)}, but lora_args say the rank is {rank}"
            )
        if part == "B" and scale != 1:
            stored[name] = stored[name].changed(lambda b: b.float() * scale, dtype=torch.float32)
    return LazyTensors(stored), params | {"lora_args": {"rank": rank, "scale": 1.0}}


def config_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """`params` in the form of the backbone's config."""
    arguments = params.get("quantization_args")
    rotated = isinstance(arguments, dict) and arguments.get("spinquant") is True
    kept = {name: value for name, value in params.items() if name != "lora_args"}
    return kept | ({"use_spin_quant": True} if rotated else {})


def _rank_and_scale(arguments: Any, source: str) -> tuple[int, float]:
    rank, scale = (
        (arguments.get("rank"), arguments.get("scale"))
        if isinstance(arguments, dict)
        else (None, None)
    )
    if (
        not isinstance(rank, int)
        or not isinstance(scale, int | float)
        or isinstance(rank, bool)
        or isinstance(scale, bool)
        or not 0 < abs(scale) < float("inf")
    ):
        raise InputError(
            f"{source}: lora_args in params.json is {arguments!r}, expected a rank and a scale "
            "for the file's adaptors"
        )
    return rank, float(scale)
