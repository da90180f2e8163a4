"""Embedding, norm, element-wise and shape operators, and argmax, as dispatches."""

import math

from quatrain.runtime.wgpu.dispatch import Dispatch, Operand, Symbol, Traits, ceil_div, dispatch

# WGSL of each element-wise operator over f32 `a` (and `b`).
UNARY = {
    "aten.sigmoid": "1.0 / (1.0 + exp(-a))",
    "aten.silu": "a / (1.0 + exp(-a))",
    "aten.neg": "-a",
    "aten.exp": "exp(a)",
    "aten.sqrt": "sqrt(a)",
    "aten.rsqrt": "inverseSqrt(a)",
    "aten.tanh": "tanh(clamp(a, -15.0, 15.0))",
    "aten.relu": "max(a, 0.0)",
}
BINARY = {
    "aten.add": "a + b",
    "aten.sub": "a - b",
    "aten.mul": "a * b",
    "aten.div": "a / b",
    "silu_mul": "a / (1.0 + exp(-a)) * b",
}


def embedding(tokens: Operand, table: Operand, y: Operand) -> Dispatch:
    """y [..., K] = table [V, K] at i32 `tokens`; one outside the table reads its last row."""
    rows, k = table.shape
    return dispatch(
        "embedding", [tokens, table, y], (tokens.count,),
        lambda p: (ceil_div(k, 64), p[0], 1),
        T=y.dtype, K=k, ROWS=rows, TABLE=table.dtype, WORKGROUP=64,
    )  # fmt: skip


def embedding_int4(
    tokens: Operand, table: Operand, scales: Operand, y: Operand, group: int, even_low: bool
) -> Dispatch:
    """y [..., K] from the u8 table [V, K/2] and scales [V, K/group].

    `even_low`: the table is shared with a linear, whose even elements are the low nibbles.
    """
    rows, k = table.shape[0], table.shape[1] * 2
    return dispatch(
        "embedding_q4gsw", [tokens, table, scales, y], (tokens.count,),
        lambda p: (ceil_div(k, 64), p[0], 1),
        T=y.dtype, K=k, ROWS=rows, GROUP=group, W_SCALE=scales.dtype, EVEN_LOW=even_low,
        WORKGROUP=64,
    )  # fmt: skip


def rms_norm(x: Operand, weight: Operand, eps: float, y: Operand, traits: Traits) -> Dispatch:
    """y = x / sqrt(mean(x^2) + eps) * weight over the last dimension, computed in f32."""
    return dispatch(
        "rms_norm", [x, weight, y], (x.rows,), lambda p: (p[0], 1, 1),
        T=x.dtype, K=x.shape[-1], WEIGHT=weight.dtype, EPS=eps,
        WORKGROUP=32 if traits.cpu else 128,
    )  # fmt: skip


def elementwise(expression: str, a: Operand, b: Operand | None, y: Operand) -> Dispatch:
    """y = `expression` of a and b; b is as large as a, or repeats along its leading dimensions."""
    period = b.count if b else 1
    groups = ceil_div(a.count, 64)
    wide = min(groups, 32768)  # one dimension of a grid ends at 65535
    return dispatch(
        "elementwise", [a, b, y] if b else [a, y], (a.count, period, wide),
        lambda p: (wide, ceil_div(groups, wide), 1),
        T=y.dtype, A=a.dtype, B=b.dtype if b else "", EXPRESSION=expression, WORKGROUP=64,
    )  # fmt: skip


def take(x: Operand, dim: int, start: int | Symbol, step: int, y: Operand) -> Dispatch:
    """y = x[start :: step] along `dim`, as long as y is there (1 for a select)."""
    outer, inner = math.prod(x.shape[:dim]), math.prod(x.shape[dim + 1 :])
    length = y.count // (outer * inner)
    return dispatch(
        "slice", [x, y], (outer * length, length, start),
        lambda p: (ceil_div(inner, 64), p[0], 1),
        T=x.dtype, INNER=inner, SIZE=x.shape[dim], STEP=step, WORKGROUP=64,
    )  # fmt: skip


def argmax(logits: Operand, row: int, token: Operand) -> Dispatch:
    """token [1] u32 = the index of the highest of row `row` of logits [M, V]."""
    return dispatch(
        "argmax", [logits, token], (row,), lambda p: (1, 1, 1),
        T=logits.dtype, SIZE=logits.shape[-1], WORKGROUP=256,
    )  # fmt: skip
