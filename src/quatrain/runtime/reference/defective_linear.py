"""What the phone's broken 8da4w linear computes (see `quatrain.runtime.defects`), with torch."""

import math

import torch
import torch.nn.functional as F

from quatrain.runtime.defects import EmulatedDefect, sums_capacity

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
    group_size: int,
) -> torch.Tensor:
    """The 8da4w linear of x [..., M, K] with dense [N, K] as `defect` computes it."""
    scale = scales.float()[..., None]
    zero = zero_points_as_read(zero_points.float(), defect)[..., None]
    integers = torch.clamp(torch.round(x.float() * (1.0 / scale)) + zero, -128, 127)
    rows, columns = math.prod(x.shape[:-1]), x.shape[-1]
    kept = torch.ones(rows, columns)
    if defect == EmulatedDefect.MORE_ROWS_THAN_SUMS:
        group = torch.arange(columns)[None] // group_size
        block = group * math.ceil(rows / 4) + torch.arange(rows)[:, None] // 4
        kept = (block < sums_capacity(columns, group_size, x.dtype == torch.float16)).float()
    activation = (integers - zero * kept.reshape(x.shape)) * scale
    return F.linear(activation, dense, None if bias is None else bias[: dense.shape[0]].float())
