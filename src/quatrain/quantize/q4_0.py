"""A GGUF Q4_0 tensor in the pre-quantized layout, exactly wherever the layout can say it.

Q4_0 is symmetric int4 in groups of 32, as the layout is, but its scale carries the sign of the
group's extreme weight, which is always the integer -8. The layout, like the kernels that read
it, takes positive scales only. So of the groups with a negative scale

- one without a -8 is kept exactly: integers and scale change sign together;
- one with a -8 would need a +8, which int4 does not have: it is rounded again, like any other
  weights. No other grid of sixteen levels holds all its values, so nothing exact exists.
"""

import torch

from quatrain.quantize.groups import INT4_MIN, quantize_groups

GROUP_SIZE = 32


def positive_scales(
    values: torch.Tensor, scales: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Make the scales of Q4_0's blocks positive.

    `values` int8 [..., K] in [-8, 7], `scales` float32 [..., K/32] of any sign. Returns both in the
    layout, and how many groups had to be rounded again. Raises `ValueError` where a scale is not
    finite.
    """
    if not torch.isfinite(scales).all():
        raise ValueError("holds a NaN or an infinite scale")
    groups = values.view(-1, GROUP_SIZE).clone()
    scale = scales.reshape(-1).clone()
    negative = scale < 0
    rounded = negative & (groups == INT4_MIN).any(dim=-1)
    flipped = negative & ~rounded
    zero = scale == 0

    groups[zero] = 0
    scale[zero] = 1.0
    groups[flipped] = -groups[flipped]
    scale[flipped] = -scale[flipped]
    if rounded.any():
        weights = groups[rounded] * scale[rounded, None]
        groups[rounded], new_scale = quantize_groups(weights, GROUP_SIZE)
        scale[rounded] = new_scale[:, 0]
    return groups.view_as(values), scale.view_as(scales), int(rounded.sum())
