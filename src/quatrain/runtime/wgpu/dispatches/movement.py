"""Operators that move numbers and change none, as dispatches."""

import math

from quatrain.runtime.wgpu.dispatches.dispatch import Dispatch, Operand, Symbol, per_element
from quatrain.runtime.wgpu.dispatches.indexing import Axis, axes, place, strides


def take(x: Operand, dim: int, start: int | Symbol, step: int, y: Operand) -> Dispatch:
    """y = x[start :: step] along `dim`, as long as y is there (1 for a select)."""
    outer, inner = math.prod(x.shape[:dim]), math.prod(x.shape[dim + 1 :])
    length = y.count // (outer * inner)
    return per_element(
        "slice", [x, y], (y.count, length, start),
        T=x.dtype, INNER=inner, SIZE=x.shape[dim], STEP=step,
    )  # fmt: skip


def put(x: Operand, dim: int, start: int | Symbol, y: Operand) -> Dispatch:
    """y[start : start + length] = x along `dim`, as long as x is there."""
    return per_element(
        "cat", [x, y], (x.count, x.shape[dim], start, y.shape[dim]),
        T=y.dtype, X=x.dtype, INNER=math.prod(x.shape[dim + 1 :]),
    )  # fmt: skip


def strided(x: Operand, given: list[Axis], y: Operand, start: int = 0) -> Dispatch:
    """y = x from its element `start` on, by the steps that y's dimensions make in x."""
    return _strided([x, y], y.count, f"{start}u + {place(given)}" if start else place(given), "i")


def permute(x: Operand, dims: list[int], y: Operand) -> Dispatch:
    """y = x with dimension `dims[i]` as its i-th."""
    return strided(x, axes(x.shape, dims), y)


def paste(x: Operand, starts: list[int], y: Operand) -> Dispatch:
    """Copies x into y [...], with its first element at `starts`; the rest of y is unchanged."""
    steps = strides(y.shape)
    start = sum(at * step for at, step in zip(starts, steps, strict=True))
    into = place(list(zip(x.shape, steps, strict=True)))
    return _strided([x, y], x.count, "i", f"{start}u + {into}")


def gather(x: Operand, dim: int, index: Operand, y: Operand) -> Dispatch:
    """y = x at the i32 positions `index` along `dim`; y has the shape of `index` in place of that
    dimension.

    A negative position counts from the end; one outside is clamped.
    """
    inner, outer = math.prod(x.shape[dim + 1 :]), math.prod(x.shape[:dim])
    of_y = [(outer, x.shape[dim] * inner), (index.count, 0), (inner, 1)]
    picks = place([(outer, 0), (index.count, 1), (inner, 0)])
    return _strided([x, y, index], y.count, place(of_y), "i", picks, x.shape[dim], inner)


def gather_each(x: Operand, dim: int, index: Operand, y: Operand) -> Dispatch:
    """y = x at the same position, except that along `dim` it is `index` [shape of y]."""
    steps = strides(x.shape)
    of_y = [(s, 0 if d == dim else steps[d]) for d, s in enumerate(y.shape)]
    return _strided([x, y, index], y.count, place(of_y), "i", "i", x.shape[dim], steps[dim])


def _strided(
    operands: list[Operand], count: int, origin: str, goal: str,
    index: str = "", size: int = 0, step: int = 0,
) -> Dispatch:  # fmt: skip
    x, y = operands[:2]
    return per_element(
        "strided", operands, (count,),
        T=y.dtype, X=x.dtype, FROM=origin, TO=goal, INDEX=index, SIZE=size, STEP=step,
    )  # fmt: skip
