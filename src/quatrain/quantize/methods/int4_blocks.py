"""A tensor that its GGUF file holds as int4 in the pre-quantized layout, exactly.

Q4_0 is symmetric int4 in groups of 32, as the layout is, but its scale carries the sign of the
group's extreme weight, which is always the integer -8. So about half of what ggml writes has a
negative scale. Where a positive one can say the same it does, for kernels that want no other
(XNNPACK's): integers and scale change sign together. A group with a -8 would need a +8, which int4
does not have, and keeps its negative scale. Q3_K has groups of 16 and no integer below -4.
"""

import torch

from quatrain.checkpoint.float_model import FloatModel
from quatrain.int4 import INT4_MIN
from quatrain.quantize.plan.plan import TensorPlan
from quatrain.quantize.quantized_tensor import QuantizedTensor, RoundingError

_GROUPS_AT_ONCE = 1 << 14  # half a megabyte of integers


def keep_int4_blocks(source: FloatModel, tensor: TensorPlan) -> QuantizedTensor:
    """The file's own integers and scales (see `layout_of_blocks`); a group of the file is several
    of the plan's where those are smaller.

    Raises `ValueError` if a scale is not finite.
    """
    blocks = source.int4_blocks[tensor.source]
    assert tensor.group_size is not None
    values, scales = blocks()
    scales = scales.repeat_interleave(blocks.group_size // tensor.group_size, dim=-1)
    squared_weight = _make_layout(values, scales)
    negative_scales = int((scales < 0).sum())
    error = RoundingError(0.0, squared_weight, scales.numel(), negative_scales)
    return QuantizedTensor((values, scales), error)


def layout_of_blocks(
    values: torch.Tensor, scales: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Groups of int4 in the form of the layout: the same weights, with positive scales where
    possible.

    `values` int8 [..., K] in [-8, 7], `scales` float32 [..., K / group] of any sign. A scale of 0
    becomes 1 and its integers 0. Raises `ValueError` if a scale is not finite.
    """
    if not torch.isfinite(scales).all():
        raise ValueError("holds a NaN or an infinite scale")
    groups = values.view(scales.numel(), -1).clone()
    scale = scales.reshape(-1).clone()
    flipped = (scale < 0) & ~(groups == INT4_MIN).any(dim=-1)
    zero = scale == 0

    groups[zero] = 0
    scale[zero] = 1.0
    groups[flipped] = -groups[flipped]
    scale[flipped] = -scale[flipped]
    return groups.view_as(values), scale.view_as(scales)


def _make_layout(values: torch.Tensor, scales: torch.Tensor) -> float:
    """`layout_of_blocks` in place, some groups at a time. Returns the sum of squared weights."""
    squared_weight = 0.0
    for groups, scale in zip(
        values.view(scales.numel(), -1).split(_GROUPS_AT_ONCE),
        scales.view(-1, 1).split(_GROUPS_AT_ONCE),
        strict=True,
    ):
        made = layout_of_blocks(groups, scale)
        groups.copy_(made[0])
        scale.copy_(made[1])
        # At most 64 each, which int8 holds; summed as int64.
        squares = groups.square().sum(dim=-1, keepdim=True)
        squared_weight += float((squares * scale.double().square()).sum())
    return squared_weight
