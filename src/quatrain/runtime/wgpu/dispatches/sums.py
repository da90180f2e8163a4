"""Matrix products, convolutions, softmax and layer norms, as dispatches."""

import math
from dataclasses import dataclass

from quatrain.runtime.wgpu.dispatches.dispatch import (
    Dispatch,
    Operand,
    dispatch,
    per_element,
    spread_grid,
)
from quatrain.runtime.wgpu.dispatches.indexing import axes, broadcast_axes, place, strides
from quatrain.runtime.wgpu.dispatches.pointwise import LARGEST


@dataclass(frozen=True)
class Addend:
    """What is added to a product: `times` times x, which broadcasts to it."""

    x: Operand
    times: float = 1.0


def product(
    a: Operand, b: Operand, y: Operand, factor: float = 1.0, added: Addend | None = None,
    b_transposed: bool = False, half: bool = False,
) -> Dispatch:  # fmt: skip
    """y [..., M, N] = factor * a [..., M, K] @ b [..., K, N], plus `added`; batches broadcast.

    `b_transposed`: b is [..., N, K]. `half`: summed in float16.
    """
    *batch, m, n = y.shape
    k = a.shape[-1]
    a_axes = broadcast_axes(a.shape, (*batch, m, k))[:-1]
    b_axes = broadcast_axes(b.shape, (*batch, n, k) if b_transposed else (*batch, k, n))
    over, along = (b_axes[-2], b_axes[-1]) if b_transposed else (b_axes[-1], b_axes[-2])
    constants = {"C_TYPE": "", "ADDED": 0.0, "AT": ""}
    if added is not None:
        at = place(broadcast_axes(added.x.shape, y.shape))
        constants = {"C_TYPE": added.x.dtype, "ADDED": float(added.times), "AT": at}
    return per_element(
        "contraction", [a, b, y] + ([added.x] if added else []), (y.count,),
        T=y.dtype, A_TYPE=a.dtype, B_TYPE=b.dtype, K=k, A=place([*a_axes, (n, 0)]), A_STEP=1,
        B=place([*b_axes[:-2], (m, 0), over]), B_STEP=along[1], FACTOR=float(factor), **constants,
        HALF=half and y.dtype == "f16",
    )  # fmt: skip


def softmax(x: Operand, dim: int, y: Operand, log: bool = False, half: bool = False) -> Dispatch:
    """y = softmax of x along `dim`, or its logarithm; in float16 where `half`."""
    others = [d for d in range(len(x.shape)) if d != dim]
    return per_element(
        "softmax", [x, y], (x.count // x.shape[dim],),
        T=y.dtype, X=x.dtype, K=x.shape[dim], STEP=strides(x.shape)[dim],
        FIRST=place(axes(x.shape, others)), LOG=log, HALF=half and y.dtype == "f16",
    )  # fmt: skip


@dataclass(frozen=True)
class LayerNorm:
    """The results y [M, K], and per row its mean and 1 / sqrt(variance + eps)."""

    y: Operand
    means: Operand
    factors: Operand


def layer_norm(
    x: Operand, weight: Operand | None, bias: Operand | None, eps: float, out: LayerNorm,
    half: bool = False,
) -> Dispatch:  # fmt: skip
    """The layer norm of rows x [M, K], as many as there are means; weight and bias [K]. `half`: all
    of it in float16."""
    affine = [(name, o) for name, o in (("weight", weight), ("bias", bias)) if o is not None]
    rows = out.means.count
    return dispatch(
        "layer_norm", [x, out.y, out.means, out.factors, *(o for _, o in affine)], (rows,),
        lambda p: spread_grid(p[0]),
        T=out.y.dtype, X=x.dtype, MEANS=out.means.dtype, FACTORS=out.factors.dtype,
        K=x.count // rows, EPS=eps, AFFINE=tuple((name, o.dtype) for name, o in affine),
        HALF=half and out.y.dtype == "f16",
        WORKGROUP=64,
    )  # fmt: skip


@dataclass(frozen=True)
class Window:
    """How a convolution's kernel moves: a number for each dimension of an image, [L] or [H, W]."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool

    def sizes(
        self, image: tuple[int, ...], kernel: tuple[int, ...], more: tuple[int, ...]
    ) -> tuple[int, ...]:
        """The sizes of the result, `more` on the far side where it is transposed."""
        moves = zip(image, kernel, self.stride, self.padding, self.dilation, more, strict=True)
        if self.transposed:
            return tuple((n - 1) * s - 2 * p + d * (k - 1) + m + 1 for n, k, s, p, d, m in moves)
        return tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d, _ in moves)


def convolution(
    x: Operand, weight: Operand, bias: Operand | None, window: Window, y: Operand,
    clamp: tuple[float, float] = (-math.inf, math.inf),
) -> Dispatch:  # fmt: skip
    """y [B, O, ...] = x [B, I, ...] convolved with weight [O, I / groups, ...], or transposed with
    weight [I, O / groups, ...], plus bias [O]; then between the bounds of `clamp`."""
    groups = window.groups
    clamped = "clamp(total, LOW, HIGH)" if clamp != (-math.inf, math.inf) else "total"
    low, high = (max(-LARGEST, min(LARGEST, bound)) for bound in clamp)
    # A signal [L] is an image of one row.
    return per_element(
        "convolution", [x, weight, y] + ([bias] if bias else []), (y.count,),
        T=y.dtype, X=x.dtype, W=weight.dtype, BIAS=bias.dtype if bias else "",
        SIZE=(1, *x.shape[2:])[-2:], OUT=(1, *y.shape[2:])[-2:],
        KERNEL=(1, *weight.shape[2:])[-2:], STRIDE=(1, *window.stride)[-2:],
        PADDING=(0, *window.padding)[-2:], DILATION=(1, *window.dilation)[-2:],
        TRANSPOSED=window.transposed, CHANNELS=x.shape[1] // groups,
        OUTPUTS=y.shape[1] // groups, GROUPS=groups, RESULT=clamped, LOW=low, HIGH=high,
    )  # fmt: skip


def rotate_pairs(x: Operand, angles: Operand, y: Operand) -> Dispatch:
    """y = x [B, N, C] with its pairs (2j, 2j + 1) rotated by N * C / 2 pairs (cos, sin)."""
    return per_element(
        "rope_pairs", [x, angles, y], (x.count // 2,),
        T=y.dtype, TABLE=angles.dtype, ANGLES=angles.count // 2,
    )  # fmt: skip
