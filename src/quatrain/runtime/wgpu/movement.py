"""Operators that move numbers and change none, as dispatches."""

import math

from quatrain.runtime.wgpu.dispatch import (
    Dispatch,
    Operand,
    Symbol,
    ceil_div,
    dispatch,
    spread_grid,
)


def take(x: Operand, dim: int, start: int | Symbol, step: int, y: Operand) -> Dispatch:
    """y = x[start :: step] along `dim`, as long as y is there (1 for a select)."""
    return _slice(x, dim, y, None, start, step)


def gather(x: Operand, dim: int, index: Operand, y: Operand) -> Dispatch:
    """y = x at the i32 positions `index` [L] along `dim`; past the end, the last one."""
    return _slice(x, dim, y, index)


def _slice(
    x: Operand, dim: int, y: Operand, index: Operand | None, start: int | Symbol = 0, step: int = 1
) -> Dispatch:
    outer, inner = math.prod(x.shape[:dim]), math.prod(x.shape[dim + 1 :])
    length = y.count // (outer * inner)
    return dispatch(
        "slice", [x, y, index] if index else [x, y], (outer * length, length, start),
        lambda p: (ceil_div(inner, 64), p[0], 1),
        T=x.dtype, INNER=inner, SIZE=x.shape[dim], STEP=step, INDEX=index is not None,
        WORKGROUP=64,
    )  # fmt: skip


def put(x: Operand, dim: int, start: int | Symbol, y: Operand) -> Dispatch:
    """y[start : start + length] = x along `dim`, as long as x is there."""
    outer, inner = math.prod(x.shape[:dim]), math.prod(x.shape[dim + 1 :])
    length = x.shape[dim]
    return dispatch(
        "cat", [x, y], (outer * length, length, start, y.shape[dim]),
        lambda p: (ceil_div(inner, 64), p[0], 1),
        T=y.dtype, X=x.dtype, INNER=inner, WORKGROUP=64,
    )  # fmt: skip


def permute(x: Operand, dims: tuple[int, ...], y: Operand) -> Dispatch:
    """y = x with dimension `dims[i]` as its i-th."""
    strides = [math.prod(x.shape[i + 1 :]) for i in range(len(x.shape))]
    sizes_and_strides = tuple((x.shape[dim], strides[dim]) for dim in dims)
    return dispatch(
        "permute", [x, y], (y.count,), lambda p: spread_grid(ceil_div(p[0], 64)),
        T=x.dtype, DIMS=sizes_and_strides, WORKGROUP=64,
    )  # fmt: skip
