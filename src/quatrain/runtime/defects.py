"""Known defects of the phone's int4 linear, reproduced: what the broken kernel computes.

Ids are those of the hazard catalogue (`quatrain.targets`). All concern
`et_vk.linear_dq8ca_q4gsw`, the 8da4w linear; weight-only programs meet none of them. A defect
is emulated whether or not the program would trigger it, to show what it does.
"""

import math

import torch
import torch.nn.functional as F

from quatrain.errors import InputError

# Read through an integer view, a negative zero point -k comes back as -2^23 - k.
# Source: https://github.com/pytorch/executorch/pull/20491
_FLOAT_READ_AS_INT8 = -float(2**23)

EMULATED_DEFECTS = {
    "dq8ca-zp-binding-float": "negative zero points -k are read as -2^23 - k",
    "dq8ca-zp-binding-int8": "zero points saturate to -128 or 127",
    "dq8ca-m-gt-k": "the zero-point correction is lost past the end of a buffer sized by K",
}


def check_defect(defect: str | None) -> None:
    """Refuse a defect that cannot be emulated, naming those that can."""
    if defect is not None and defect not in EMULATED_DEFECTS:
        known = "; ".join(f"{name} ({effect})" for name, effect in EMULATED_DEFECTS.items())
        raise InputError(f"--emulate {defect}: cannot be emulated; known are: {known}")


def zero_points_as_read(zero_points: torch.Tensor, defect: str) -> torch.Tensor:
    """What the broken kernel reads where float32 `zero_points` are stored."""
    if defect == "dq8ca-zp-binding-float":
        return torch.where(zero_points < 0, zero_points + _FLOAT_READ_AS_INT8, zero_points)
    if defect == "dq8ca-zp-binding-int8":
        return torch.where(zero_points < 0, -128.0, 127.0)
    return zero_points


def sums_capacity(columns: int, group_size: int, fp16: bool) -> int:
    """How many blocks of four rows, over all groups, the undersized buffer of sums holds.

    It has one per four input channels and group where it needs one per four rows; in fp16 it
    is half as long again. Source: https://github.com/pytorch/executorch/issues/21423
    """
    return (columns // group_size) * math.ceil(columns / 4) // (2 if fp16 else 1)


def defective_linear_dynamic(
    defect: str,
    x: torch.Tensor,
    scales: torch.Tensor,
    zero_points: torch.Tensor,
    dense: torch.Tensor,
    bias: torch.Tensor | None,
    group_size: int,
) -> torch.Tensor:
    """The 8da4w linear of x [..., M, K] with dense [N, K] as `fault` computes it."""
    scale = scales.float()[..., None]
    zero = zero_points_as_read(zero_points.float(), defect)[..., None]
    integers = torch.clamp(torch.round(x.float() * (1.0 / scale)) + zero, -128, 127)
    rows, columns = math.prod(x.shape[:-1]), x.shape[-1]
    kept = torch.ones(rows, columns)
    if defect == "dq8ca-m-gt-k":
        group = torch.arange(columns)[None] // group_size
        block = group * math.ceil(rows / 4) + torch.arange(rows)[:, None] // 4
        kept = (block < sums_capacity(columns, group_size, x.dtype == torch.float16)).float()
    activation = (integers - zero * kept.reshape(x.shape)) * scale
    return F.linear(activation, dense, None if bias is None else bias[: dense.shape[0]].float())
