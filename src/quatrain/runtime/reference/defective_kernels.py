"""What the phone's broken kernels compute (see `quatrain.runtime.defects`), with torch."""

import math

import torch

from quatrain.runtime.defects import EmulatedDefect, sum_multiplicity, sums_capacity
from quatrain.runtime.reference.quantized import (
    linear_weight_only,
    quantized_rows,
)

# Read through an integer view, a negative zero point -k comes back as -2^23 - k.
# Source: https://github.com/pytorch/executorch/pull/20491
_FLOAT_READ_AS_INT8 = -float(2**23)


def zero_points_as_read(zero_points: torch.Tensor, defect: EmulatedDefect) -> torch.Tensor:
    """What the broken kernel reads where float32 `zero_points` are stored."""
    if defect == EmulatedDefect.FLOAT_ZERO_POINTS:
        return torch.where(zero_points < 0, zero_points + _FLOAT_READ_AS_INT8, zero_points)
    if defect == EmulatedDefect.INT8_ZERO_POINTS:
        return torch.where(zero_points < 0, -128.0, 127.0)
    return zero_points


def defective_linear_dynamic(
    defect: EmulatedDefect,
    x: torch.Tensor,
    scales: torch.Tensor,
    zero_points: torch.Tensor,
    dense: torch.Tensor,
    bias: torch.Tensor | None,
    weight_scales: torch.Tensor,
    group_size: int,
    misread: torch.Tensor | None = None,
) -> torch.Tensor:
    """The 8da4w linear of x [..., M, K] with dense [N, K] as `defect` computes it.

    `weight_scales` [K / group_size, N] are a factor of `dense`; `misread` as `linear_dynamic`'s.
    """
    scale = scales.float()[..., None]
    zero = zero_points_as_read(zero_points.float(), defect)[..., None]
    integers = quantized_rows(x, scale, zero)
    rows, columns = math.prod(x.shape[:-1]), x.shape[-1]
    kept = torch.ones(rows, columns)
    if defect == EmulatedDefect.MORE_ROWS_THAN_SUMS:
        group = torch.arange(columns)[None] // group_size
        block = group * math.ceil(rows / 4) + torch.arange(rows)[:, None] // 4
        kept = (block < sums_capacity(columns, group_size, x.dtype == torch.float16)).float()
    shifts = zero * kept.reshape(x.shape)
    result = linear_weight_only((integers - shifts) * scale, dense, bias)
    if misread is not None:
        result -= (shifts * scale)[..., ::group_size] @ (misread * weight_scales.float())
    if defect == EmulatedDefect.GROUP_SUMS:
        result -= _excess_of_group_sums(integers, weight_scales, group_size) * scale
    return result


def _excess_of_group_sums(
    integers: torch.Tensor, weight_scales: torch.Tensor, group_size: int
) -> torch.Tensor:
    """What is taken off too much [..., rows]: weights are stored as w + 8, so the kernel subtracts
    8 times each group's sum of activations, which counts some of them more than once."""
    counts = torch.tensor(sum_multiplicity(group_size)).repeat_interleave(4)
    excess = (integers.unflatten(-1, (-1, group_size)) * (counts - 1)).sum(-1)  # [..., groups]
    return 8 * (excess @ weight_scales.float())


def embedding_of_first_in_four(weights: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Rows of weights [V, D] for indices [..., T] -> [..., T, D], as a width-packed shader writes
    a height-packed output: token t has the row of token t - t % 4, shifted by t % 4.

    Source: `ops/glsl/embedding_texture.glsl` of ExecuTorch's Vulkan runtime.
    """
    width, length = weights.shape[1], indices.shape[-1]
    within = torch.arange(length) % 4
    rows = indices[..., torch.arange(length) - within].long()
    at = rows[..., None] * width + within[:, None] + torch.arange(width)
    return weights.reshape(-1)[at.clamp(max=weights.numel() - 1)]
