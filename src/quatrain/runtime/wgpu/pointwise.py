"""Embeddings, element-wise operators and reductions, as dispatches."""

import math

from quatrain.errors import InputError
from quatrain.runtime.wgpu.dispatch import (
    Dispatch,
    Operand,
    ceil_div,
    dispatch,
    spread_grid,
)

# WGSL of each element-wise operator over f32 `a`, `b` and `c`.
UNARY = {
    "aten.sigmoid": "1.0 / (1.0 + exp(-a))",
    "aten.silu": "a / (1.0 + exp(-a))",
    "aten.neg": "-a",
    "aten.exp": "exp(a)",
    "aten.sqrt": "sqrt(a)",
    "aten.rsqrt": "inverseSqrt(a)",
    "aten.tanh": "tanh(clamp(a, -15.0, 15.0))",
    "aten.relu": "max(a, 0.0)",
    # The approximation by tanh (Hendrycks and Gimpel, arXiv 1606.08415), as Vulkan's own.
    "aten.gelu": (
        "0.5 * a * (1.0 + tanh(clamp(0.7978845608 * (a + 0.044715 * a * a * a), -15.0, 15.0)))"
    ),
}
BINARY = {
    "aten.add": "a + b",
    "aten.sub": "a - b",
    "aten.mul": "a * b",
    "aten.div": "a / b",
    "floor division": "floor_divide(a, b)",
    "division toward zero": "select(1.0, -1.0, a / b < 0.0) * floor_divide(abs(a), abs(b))",
    "aten.ge": "select(0.0, 1.0, a >= b)",
    "aten.gt": "select(0.0, 1.0, a > b)",
    "aten.le": "select(0.0, 1.0, a <= b)",
    "aten.lt": "select(0.0, 1.0, a < b)",
    "aten.eq": "select(0.0, 1.0, a == b)",
    "aten.minimum": "min(a, b)",
    "aten.logical_and": "select(0.0, 1.0, a != 0.0 && b != 0.0)",
    "aten.logical_or": "select(0.0, 1.0, a != 0.0 || b != 0.0)",
    "silu_mul": "a / (1.0 + exp(-a)) * b",
}
# The divisions by their `rounding_mode`.
DIVISIONS = {
    None: "aten.div", "floor": "floor division", "trunc": "division toward zero"
}  # fmt: skip
WHERE = "select(c, b, a != 0.0)"
# Reductions over the last dimension: first value, how the next is joined, how it ends.
REDUCTIONS = {
    "aten.amax": ("-3.4e38", "max(sum, value)", "sum"),
    "aten.amin": ("3.4e38", "min(sum, value)", "sum"),
    "aten.sum": ("0.0", "sum + value", "sum"),
    "aten.mean": ("0.0", "sum + value", "sum / f32(K)"),
}
_LOWEST = 3.4e38  # stands for infinity, which WGSL has no literal for


def embedding(tokens: Operand, table: Operand, y: Operand, first_in_four: bool = False) -> Dispatch:
    """y [..., K] = table [V, K] at i32 `tokens`; one outside the table reads its last row.

    `first_in_four` emulates the defect embedding-height-packed.
    """
    rows, k = table.shape
    return dispatch(
        "embedding", [tokens, table, y], (tokens.count,),
        lambda p: (ceil_div(k, 64), p[0], 1),
        T=y.dtype, K=k, ROWS=rows, TABLE=table.dtype, FIRST_IN_FOUR=first_in_four, WORKGROUP=64,
    )  # fmt: skip


def embedding_int4(
    tokens: Operand, table: Operand, scales: Operand, y: Operand, group: int, even_low: bool
) -> Dispatch:
    """y [..., K] from the u8 table [>= V, K/2] and scales [V, K/group].

    `even_low`: the table is shared with a linear, whose even elements are the low nibbles.
    """
    rows, k = scales.shape[0], table.shape[1] * 2
    return dispatch(
        "embedding_q4gsw", [tokens, table, scales, y], (tokens.count,),
        lambda p: (ceil_div(k, 64), p[0], 1),
        T=y.dtype, K=k, ROWS=rows, GROUP=group, W_SCALE=scales.dtype, EVEN_LOW=even_low,
        WORKGROUP=64,
    )  # fmt: skip


def elementwise(expression: str, y: Operand, *inputs: Operand) -> Dispatch:
    """y = `expression` of up to three inputs a, b, c, each of which broadcasts to y's shape.

    Raises `InputError` where an input repeats at two places of its middle: its leading and
    trailing dimensions, and one run of others, may be absent or 1 where y's are not.
    """
    broadcasts = tuple(
        (name, x.dtype, *_index(x, y)) for name, x in zip("abc", inputs, strict=False)
    )
    return dispatch(
        "elementwise", [*inputs, y], (y.count, *(x.count for x in inputs)),
        lambda p: spread_grid(ceil_div(p[0], 64)),
        T=y.dtype, INPUTS=broadcasts, EXPRESSION=expression, WORKGROUP=64,
    )  # fmt: skip


def _index(x: Operand, y: Operand) -> tuple[str, bool]:
    """Which element of x, in WGSL, goes into element i of y, and whether modulo x's elements."""
    shape = (1,) * (len(y.shape) - len(x.shape)) + x.shape
    last = max((i for i, size in enumerate(shape) if size != 1), default=-1)
    first = next((i for i, size in enumerate(shape) if size != 1), len(shape))
    repeated = [i for i in range(first, last + 1) if shape[i] != y.shape[i]]
    inner = math.prod(y.shape[last + 1 :]) if x.count > 1 else 1
    places = range(repeated[0], repeated[-1] + 1) if repeated else range(0)
    if len(shape) > len(y.shape) or any(shape[i] != 1 for i in places):
        raise InputError(
            f"an element-wise operator on {list(x.shape)} and {list(y.shape)}: the GPU kernel "
            "repeats leading and trailing dimensions and one run in between. Use --device reference"
        )
    index = f"i / {inner}u" if inner > 1 else "i"
    if not repeated:
        return index, x.count * inner < y.count
    run = math.prod(shape[repeated[-1] + 1 :])
    times = math.prod(y.shape[i] for i in places)
    index = f"({index}) / {run * times}u * {run}u + ({index}) % {run}u"
    return index, x.count * inner * times < y.count


def literal(value: float) -> str:
    """`value` in WGSL; an infinity becomes the largest number."""
    return repr(float(max(-_LOWEST, min(_LOWEST, value))))


def reduction(kind: str, x: Operand, y: Operand) -> Dispatch:
    """y = `kind`, one of `REDUCTIONS`, of x over as many last dimensions as y lacks or has at 1."""
    first, join, finish = REDUCTIONS[kind]
    return dispatch(
        "reduce", [x, y], (y.count,), lambda p: (ceil_div(p[0], 64), 1, 1),
        T=y.dtype, X=x.dtype, K=x.count // y.count, FIRST=first, JOIN=join, FINISH=finish,
        WORKGROUP=64,
    )  # fmt: skip
