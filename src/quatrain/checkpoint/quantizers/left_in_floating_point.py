"""Linears that a quantizer left in floating point in an int4 checkpoint.

GPTQ's `dynamic`, AWQ's `modules_to_not_convert`, the `ignore` of compressed-tensors and a filter of
torchao's `quantize_` all do. The layout has no such linear, so it is rounded as the others' groups
are.
"""

import re
from collections.abc import Mapping

import torch

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.tensor_shapes import linear_shapes
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.layout import StoredModel
from quatrain.checkpoint.quantizers.grouped_linear import (
    USUAL_GROUP_SIZE,
    RoundAgain,
    rounded_when_read,
)
from quatrain.errors import InputError, shell_word
from quatrain.short_lists import and_more

_EXPERT = re.compile(r"(.*\.experts\.)\d+(\.\w+)\.weight")


def with_all_quantized(
    tensors: LazyTensors,
    config: BackboneConfig,
    source: str,
    round_again: RoundAgain | None,
    called: Mapping[str, str],
) -> LazyTensors:
    """`tensors`, by Meta name, with the linears in floating point rounded when they are read.

    `called`: what the file itself calls a tensor, for errors and the report. Raises `InputError` if
    there are such linears and no `round_again`, one has another shape than the config says, groups
    do not divide one, or there are not as many layers as the config says.
    """
    model = StoredModel(tensors.stored, config, source, lambda name: called.get(name, name))
    model.check_layer_count()
    shapes = linear_shapes(config)
    left = [
        name
        for name in shapes
        if f"{name}.scales" not in tensors
        and (stored := tensors.stored.get(f"{name}.weight")) is not None
        and stored.dtype.is_floating_point
    ]
    if not left:
        return tensors
    names = {name: called.get(f"{name}.weight", name).removesuffix(".weight") for name in left}
    if round_again is None:
        raise _left([names[name] for name in left], source)
    model.check_shapes({f"{name}.weight": shapes[name] for name in left})
    group_size = _group_size(tensors, config)
    stored = dict(tensors.stored)
    for name in left:
        stored |= _rounded(name, names[name], tensors, group_size, source, round_again)
    return LazyTensors(stored)


def with_experts_quantized(
    tensors: LazyTensors, source: str, round_again: RoundAgain | None, called: Mapping[str, str]
) -> LazyTensors:
    """`tensors`, by Hugging Face name, with experts in floating point rounded, when they are read,
    as others of their mixture are, which is one matrix of all.

    `called`: what the file itself calls a tensor. Raises `InputError` if there are such experts and
    no `round_again`, or groups do not divide one.
    """
    quantized: dict[str, str] = {}
    left = []
    for name, tensor in tensors.stored.items():
        match = _EXPERT.fullmatch(name)
        if match and not tensor.dtype.is_floating_point:
            quantized[match[1] + match[2]] = name
        elif match:
            left.append((name, match[1] + match[2]))
    stored = dict(tensors.stored)
    for name, mixture in left:
        like = quantized.get(mixture, "").removesuffix(".weight")
        if not like:
            continue
        module = name.removesuffix(".weight")
        own = called.get(name, name).removesuffix(".weight")
        if round_again is None:
            raise _left([own], source)
        columns, groups = tensors.stored[f"{like}.weight"].shape[1], f"{like}.scales"
        size = columns // tensors.stored[groups].shape[1]
        stored |= _rounded(module, own, tensors, size, source, round_again)
        if f"{like}.zeros" in stored:
            shape = stored[f"{module}.scales"].shape
            stored[f"{module}.zeros"] = StoredTensor(
                shape, torch.float32, lambda shape=shape: torch.zeros(shape)
            )
    return LazyTensors(stored)


def _left(names: list[str], source: str) -> InputError:
    return InputError(
        f"{source}: {and_more(names)} is in floating point, while other linears are int4; run "
        f"`quatrain convert {shell_word(source)} DIR`, which rounds it to int4 too and reports "
        "the error"
    )


def _group_size(tensors: LazyTensors, config: BackboneConfig) -> int:
    for name in linear_shapes(config):
        weight, scales = (tensors.stored.get(f"{name}.{part}") for part in ("weight", "scales"))
        if weight and scales and len(scales.shape) == len(weight.shape) and scales.shape[-1]:
            return weight.shape[-1] // scales.shape[-1]
    return USUAL_GROUP_SIZE


def _rounded(
    name: str,
    called: str,
    tensors: LazyTensors,
    group_size: int,
    source: str,
    round_again: RoundAgain,
) -> dict[str, StoredTensor]:
    shape = tensors.stored[f"{name}.weight"].shape
    if shape[-1] % group_size:
        raise InputError(
            f"{source}: {called} is in floating point and has {shape[-1]} input features, not a "
            f"multiple of the other linears' group size {group_size}; quantize the original model"
        )

    def rounded() -> tuple[torch.Tensor, torch.Tensor]:
        rows = tensors.rows_of(f"{name}.weight")
        return round_again(called, rows, shape, group_size, "in floating point")

    groups = (*shape[:-1], shape[-1] // group_size)
    return rounded_when_read(name, shape, groups, rounded, f"{source}: {called}")
