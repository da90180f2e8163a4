"""Embeddings, element-wise operators and reductions, as dispatches."""

import math

from quatrain.runtime.wgpu.dispatches.dispatch import Dispatch, Operand, per_element, per_row
from quatrain.runtime.wgpu.dispatches.indexing import axes, broadcast_axes, merged, place

# WGSL of each element-wise operator over `a`, `b` and `c`, which are f32 or, if all operands are
# integers, i32: C is that type. kernels/numbers.wgsl has the functions that WGSL lacks.
UNARY = {
    "aten.sigmoid": "1.0 / (1.0 + exp(-a))",
    "aten.silu": "a / (1.0 + exp(-a))",
    "aten.neg": "-a",
    "aten.abs": "abs(a)",
    "aten.exp": "exp(a)",
    "aten.log10": "log(a) * 0.4342944819",
    "aten.sqrt": "sqrt(a)",
    "aten.rsqrt": "inverseSqrt(a)",
    "aten.sin": "sin(a)",
    "aten.cos": "cos(a)",
    "aten.tanh": "tanh(clamp(a, -15.0, 15.0))",
    "aten.relu": "higher(a, C(0))",
    "aten.round": "round(a)",
    "aten.hardswish": "a * clamp(a + 3.0, 0.0, 6.0) / 6.0",
    "aten.logical_not": "a == C(0)",
    # The approximation by tanh (Hendrycks and Gimpel, arXiv 1606.08415), as Vulkan's own.
    "aten.gelu": (
        "0.5 * a * (1.0 + tanh(clamp(0.7978845608 * (a + 0.044715 * a * a * a), -15.0, 15.0)))"
    ),
}
EXACT_GELU = "0.5 * a * (1.0 + erf(a * 0.7071067812))"
BINARY = {
    "aten.add": "a + b",
    "aten.sub": "a - b",
    "aten.mul": "a * b",
    "aten.div": "a / b",
    "floor division": "floor_divide(a, b)",
    "division toward zero": "trunc_divide(a, b)",
    "aten.pow": "power(a, b)",
    "aten.ge": "a >= b",
    "aten.gt": "a > b",
    "aten.le": "a <= b",
    "aten.lt": "a < b",
    "aten.eq": "a == b",
    "aten.ne": "a != b",
    "aten.minimum": "lower(a, b)",
    "aten.logical_and": "a != C(0) && b != C(0)",
    "aten.logical_or": "a != C(0) || b != C(0)",
    "aten.bitwise_and": "a & b",
    "aten.bitwise_or": "a | b",
    "aten.leaky_relu": "select(a, a * b, a < 0.0)",
    "aten.hardshrink": "select(a, 0.0, abs(a) <= b)",
    "silu_mul": "a / (1.0 + exp(-a)) * b",
}
# The divisions by their `rounding_mode`.
DIVISIONS = {
    None: "aten.div", "floor": "floor division", "trunc": "division toward zero"
}  # fmt: skip
# Sums and differences whose second term counts c times.
SCALED = {"aten.add": "a + c * b", "aten.sub": "a - c * b"}
WHERE = "select(c, b, a != C(0))"
# Reductions: how the next value, element k, is joined to those before; how it ends.
REDUCTIONS = {
    "aten.amax": ("sum = higher(sum, value);", "sum"),
    "aten.amin": ("sum = lower(sum, value);", "sum"),
    "aten.sum": ("sum += value;", "sum"),
    "aten.mean": ("sum += value;", "sum / C(K)"),
    "aten.argmax": (
        "if (value > sum || (is_nan(value) && !is_nan(sum))) { sum = value; best = k; }",
        "best",
    ),
    "aten.argmin": (
        "if (value < sum || (is_nan(value) && !is_nan(sum))) { sum = value; best = k; }",
        "best",
    ),
}
LARGEST = 3.4028234663852886e38  # of f32


def embedding(tokens: Operand, table: Operand, y: Operand, first_in_four: bool = False) -> Dispatch:
    """y [..., K] = table [V, K] at i32 `tokens`; one outside the table reads its last row.

    `first_in_four` emulates the defect embedding-height-packed.
    """
    rows, k = table.shape
    return per_row(
        "embedding", [tokens, table, y], (tokens.count,), k,
        T=y.dtype, K=k, ROWS=rows, TABLE=table.dtype, FIRST_IN_FOUR=first_in_four,
    )  # fmt: skip


def embedding_int4(
    tokens: Operand, table: Operand, scales: Operand, y: Operand, group: int, even_low: bool
) -> Dispatch:
    """y [..., K] from the u8 table [>= V, K/2] and scales [V, K/group].

    `even_low`: the table is shared with a linear, whose even elements are the low nibbles.
    """
    (rows, groups), k = scales.shape, table.shape[1] * 2
    if groups * group != k:
        raise ValueError(f"{groups} scales a row for {k} columns in groups of {group}")
    return per_row(
        "embedding_q4gsw", [tokens, table, scales, y], (tokens.count,), k,
        T=y.dtype, K=k, ROWS=rows, GROUP=group, W_SCALE=scales.dtype, EVEN_LOW=even_low,
    )  # fmt: skip


def elementwise(expression: str, y: Operand, *inputs: Operand | float) -> Dispatch:
    """y = `expression` of up to three inputs a, b, c: numbers, and tensors that broadcast to y.

    Computed in i32 where y and all inputs are integers, else in f32. Raises `InputError` if an
    input does not broadcast.
    """
    named = list(zip("abc", inputs, strict=False))
    tensors = [(name, x) for name, x in named if isinstance(x, Operand)]
    counts = zip(tensors, ("p.y", "p.z", "p.w"), strict=False)
    computed = "i32" if _are_integers(y, *inputs) else "f32"
    numbers = [
        (name, literal(x if computed == "i32" else float(x)))
        for name, x in named
        if not isinstance(x, Operand)
    ]
    return per_element(
        "elementwise", [*(x for _, x in tensors), y], (y.count, *(x.count for _, x in tensors)),
        T=y.dtype, C=computed,
        INPUTS=tuple((name, x.dtype, _index(x, y, count)) for (name, x), count in counts),
        NUMBERS=tuple(numbers), EXPRESSION=expression,
    )  # fmt: skip


def filled(y: Operand, value: float) -> Dispatch:
    """y = `value` throughout."""
    return elementwise("a", y, int(value) if y.dtype == "i32" else float(value))


def _are_integers(*values: Operand | float) -> bool:
    return all(
        value.dtype == "i32" if isinstance(value, Operand) else isinstance(value, int)
        for value in values
    )


def _index(x: Operand, y: Operand, count: str) -> str:
    """Which element of x, in WGSL, goes into element i of y; `count` holds x's elements."""
    found = merged(broadcast_axes(x.shape, y.shape))
    if len(found) == 2 and found[0][1] == 0 and found[1] == (x.count, 1):
        return f"i % {count}"  # of one kernel for any size of x
    return place(found)


def literal(value: float) -> str:
    """`value` in WGSL, which has no literals for infinities and NaN: these are built from their
    bits and from `p`, because WGSL refuses such constants."""
    if isinstance(value, int):
        return f"i32({int(value)})"
    if math.isnan(value):
        return "bitcast<f32>((p.x & 0u) | 0x7fc00000u)"
    if abs(value) > LARGEST:
        sign = "-" if value < 0 else ""
        return f"{sign}bitcast<f32>((p.x & 0u) | 0x7f800000u)"
    return repr(float(value))


def reduction(kind: str, x: Operand, dims: list[int], y: Operand) -> Dispatch:
    """y = `kind`, one of `REDUCTIONS`, of x over the dimensions `dims`, which y lacks or has at 1.

    Computed in i32 where x and y are integers, else in f32.
    """
    join, finish = REDUCTIONS[kind]
    kept = [dim for dim in range(len(x.shape)) if dim not in dims]
    return per_element(
        "reduce", [x, y], (y.count,),
        T=y.dtype, C="i32" if _are_integers(x, y) else "f32", X=x.dtype,
        K=math.prod(x.shape[dim] for dim in dims), FIRST=place(axes(x.shape, kept)),
        NEXT=place(axes(x.shape, dims), "k"), JOIN=join, FINISH=finish,
    )  # fmt: skip
