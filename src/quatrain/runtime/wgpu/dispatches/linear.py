"""Linears as dispatches: int4 ones in both schemes, and floating-point ones."""

from dataclasses import dataclass

from quatrain.program.vulkan.packed_weights import stepped_over
from quatrain.runtime.defects import EmulatedDefect, sum_multiplicity, sums_capacity
from quatrain.runtime.wgpu.dispatches.dispatch import (
    Dispatch,
    Operand,
    Traits,
    ceil_div,
    dispatch,
    per_row,
)
from quatrain.runtime.wgpu.dispatches.rows import Quantized

MOST_WORKGROUPS = 65535  # along one dimension of a grid
_LANES_CHANNELS = 4  # output channels of a workgroup of linear_lanes.wgsl
_LEAST_SLICE = 16  # weights that a lane of linear_rows.wgsl reads together


@dataclass(frozen=True)
class Weights:
    """An int4 linear's constants, in the program's own bytes.

    `packed` u8 [N, ceil(K/8)*4]; `scales` [K/group, >= N] and `sums` i32 [K/group, >= N], the sum
    of the integers of each group, needed only by the int8 scheme, are read with the stride of a
    phone's kernel (`stepped_over`); `bias` [>= N] or None.
    """

    packed: Operand
    scales: Operand
    group: int
    sums: Operand | None = None
    bias: Operand | None = None


def int4_linear(
    x: Operand, weights: Weights, y: Operand, traits: Traits, int8: Quantized | None = None,
    defect: EmulatedDefect | None = None, half_sums: bool = False, half: bool = False,
) -> Dispatch:  # fmt: skip
    """y [M, N] = x [M, K] @ weights^T, from `int8` instead of x where given.

    `half_sums`: several rows of float16 are summed in it, as `Arithmetic.half_sums` says; `half`:
    so are those of `int8`, as in a phone's float16 buffers.

    The shape and the device choose the kernel: one lane per channel (llvmpipe, and every
    prefill), several lanes per channel (decode on a GPU), or the plain one for odd groups.
    """
    m, k, n = x.rows, x.shape[-1], y.shape[-1]
    operands = [weights.packed, weights.scales, y, x]
    in_half = half_sums and y.dtype == "f16" and m > 1 and int8 is None
    constants = {
        "T": y.dtype, "N": n, "K": k, "GROUP": weights.group, "W_SCALE": weights.scales.dtype,
        "SCALE_STRIDE": stepped_over(n),
        "QUANTIZED": int8 is not None, "BIAS": weights.bias.dtype if weights.bias else "",
        "CAPACITY": 0, "SUM_COUNTS": (),
        "HALF_SUMS": ("f32" if traits.cpu else "f16") if in_half else "",
        "HALF": half and y.dtype == "f16" and int8 is not None and defect is None,
    }  # fmt: skip
    if int8 is not None:
        assert weights.sums is not None
        operands[3:] = [int8.packed, int8.scale, int8.zero, weights.sums]
        constants |= {"X_SCALE": int8.scale.dtype, "SUM_STRIDE": stepped_over(n)}
        if defect == EmulatedDefect.MORE_ROWS_THAN_SUMS:
            constants["CAPACITY"] = sums_capacity(k, weights.group, x.dtype == "f16")
        elif defect == EmulatedDefect.GROUP_SUMS:
            constants["SUM_COUNTS"] = tuple(map(float, sum_multiplicity(weights.group)))
    if weights.bias is not None:
        operands.append(weights.bias)

    if weights.group % _LEAST_SLICE:
        return per_row(
            "linear_any", operands, (m,), n,
            **constants, ROW=weights.packed.shape[1] * 2, EVEN_LOW=True,
        )  # fmt: skip
    fits = ceil_div(n, _LANES_CHANNELS) <= MOST_WORKGROUPS
    if m == 1 and int8 is None and fits and not traits.cpu:
        return _lanes(operands, m, constants)
    return _rows(operands, m, constants, traits)


def int4_channel_linear(x: Operand, packed: Operand, scales: Operand, y: Operand) -> Dispatch:
    """y [..., N] = x [..., K] @ weights^T, packed u8 [N, K/2] with the even k in the high nibble,
    and one scale per channel, scales [>= N]."""
    n, k = y.shape[-1], x.shape[-1]
    return per_row(
        "linear_any", [packed, scales, y, x], (x.rows,), n,
        T=y.dtype, N=n, K=k, GROUP=k, W_SCALE=scales.dtype, SCALE_STRIDE=scales.count,
        QUANTIZED=False, BIAS="", CAPACITY=0, SUM_COUNTS=(), HALF_SUMS="",
        HALF=False, ROW=2 * packed.shape[1], EVEN_LOW=False,
    )  # fmt: skip


def float_linear(
    x: Operand, weight: Operand, bias: Operand | None, y: Operand, half: bool = False
) -> Dispatch:
    """y [..., N] = x [..., K] @ weight [N, K]^T + bias [N], all floating point; summed in float16
    where `half`."""
    n, k = weight.shape
    return per_row(
        "linear_float", [x, weight, y] + ([bias] if bias else []), (x.rows,), n,
        T=y.dtype, N=n, K=k, WEIGHT=weight.dtype, BIAS=bias.dtype if bias else "",
        HALF=half and y.dtype == "f16",
    )  # fmt: skip


def _rows(operands: list[Operand], m: int, constants: dict, traits: Traits) -> Dispatch:
    # Measured on llvmpipe: two channels per lane, and eight tokens once there are as many.
    rows, tokens = 2, 1 if m == 1 else 4 if m <= 4 else 8
    workgroup = 32 if traits.cpu else 64
    per_row = ceil_div(constants["N"], rows)
    return dispatch(
        "linear_rows",
        operands,
        (m,),
        lambda p: (ceil_div(per_row, workgroup), ceil_div(p[0], tokens), 1),
        **constants, ROWS=rows, TOKENS=tokens, WORKGROUP=workgroup, SPREAD=traits.spread,
        SLICE=_LEAST_SLICE if constants["GROUP"] % 32 else 32,
    )  # fmt: skip


def _lanes(operands: list[Operand], m: int, constants: dict) -> Dispatch:
    lanes, workgroup = 16, 16 * _LANES_CHANNELS
    return dispatch(
        "linear_lanes",
        operands,
        (m,),
        lambda p: (ceil_div(constants["N"], _LANES_CHANNELS), p[0], 1),
        **constants, LANES=lanes, WORKGROUP=workgroup,
    )  # fmt: skip
