"""Linears that a quantizer left in floating point, in a checkpoint whose others are int4.

GPTQ's `dynamic`, AWQ's `modules_to_not_convert`, the `ignore` of compressed-tensors and a filter of
torchao's `quantize_` all do. The layout has no such linear, so it is rounded as the others' groups
are.
"""

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
from quatrain.errors import InputError


def with_all_quantized(
    tensors: LazyTensors,
    config: BackboneConfig,
    source: str,
    round_again: RoundAgain | None,
    called: Mapping[str, str],
) -> LazyTensors:
    """`tensors`, by Meta name, with the linears in floating point rounded when they are read.

    `called`: what the file itself calls a tensor, for errors and the report. Raises `InputError`
    where there are such linears and no `round_again`, one has another shape than the config says,
    groups do not divide one, or there are not as many layers as the config says.
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
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        raise InputError(
            f"{source}: {names[left[0]]}{more} is left in floating point beside int4 linears; run "
            f"`quatrain convert {source} DIR`, which rounds such linears too and says what that "
            "costs"
        )
    model.check_shapes({f"{name}.weight": shapes[name] for name in left})
    group_size = _group_size(tensors, config)
    stored = dict(tensors.stored)
    for name in left:
        stored |= _rounded(name, names[name], tensors, group_size, source, round_again)
    return LazyTensors(stored)


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
            f"{source}: {called} is left in floating point and has {shape[-1]} input features, not "
            f"a multiple of the other linears' group size {group_size}; quantize the model that "
            "this one was made from"
        )

    def rounded() -> tuple[torch.Tensor, torch.Tensor]:
        rows = tensors.rows_of(f"{name}.weight")
        return round_again(called, rows, shape, group_size, "in floating point")

    groups = (*shape[:-1], shape[-1] // group_size)
    return rounded_when_read(name, shape, groups, rounded, f"{source}: {called}")
