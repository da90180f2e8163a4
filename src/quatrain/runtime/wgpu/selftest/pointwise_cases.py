"""Embeddings, element-wise operators and reductions, over shapes that break them."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from quatrain.runtime.wgpu.dispatches.pointwise import (
    BINARY,
    REDUCTIONS,
    UNARY,
    WHERE,
    elementwise,
    embedding,
    embedding_int4,
    filled,
    reduction,
)
from quatrain.runtime.wgpu.selftest.bench import Bench, Case, Made

_FUNCTIONS = {
    "aten.sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "aten.silu": lambda a: a / (1 + np.exp(-a)),
    "aten.neg": lambda a: -a,
    "aten.abs": np.abs,
    "aten.exp": np.exp,
    "aten.log10": np.log10,
    "aten.sin": np.sin,
    "aten.cos": np.cos,
    "aten.round": np.round,
    "aten.hardswish": lambda a: a * np.clip(a + 3, 0, 6) / 6,
    "aten.logical_not": np.logical_not,
    "aten.sqrt": np.sqrt,
    "aten.rsqrt": lambda a: 1 / np.sqrt(a),
    "aten.tanh": np.tanh,
    "aten.relu": lambda a: np.maximum(a, 0),
    "aten.gelu": lambda a: a / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3))),
    "aten.add": lambda a, b: a + b,
    "aten.sub": lambda a, b: a - b,
    "aten.mul": lambda a, b: a * b,
    "aten.div": lambda a, b: a / b,
    "floor division": lambda a, b: np.floor(a / b),
    "division toward zero": lambda a, b: np.trunc(a / b),
    "aten.ge": lambda a, b: a >= b,
    "aten.gt": lambda a, b: a > b,
    "aten.le": lambda a, b: a <= b,
    "aten.lt": lambda a, b: a < b,
    "aten.eq": lambda a, b: a == b,
    "aten.minimum": np.minimum,
    "aten.ne": lambda a, b: a != b,
    "aten.pow": np.power,
    "aten.bitwise_and": np.bitwise_and,
    "aten.bitwise_or": np.bitwise_or,
    "aten.leaky_relu": lambda a, b: np.where(a < 0, a * b, a),
    "aten.hardshrink": lambda a, b: np.where(np.abs(a) <= b, 0, a),
    "aten.logical_and": np.logical_and,
    "aten.logical_or": np.logical_or,
    "silu_mul": lambda a, b: a / (1 + np.exp(-a)) * b,
    "aten.amax": lambda a: a.max(-1),
    "aten.amin": lambda a: a.min(-1),
    "aten.sum": lambda a: a.sum(-1),
    "aten.mean": lambda a: a.mean(-1),
    "aten.argmax": lambda a: a.argmax(-1),
    "aten.argmin": lambda a: a.argmin(-1),
}
_POSITIVE = (
    "aten.sqrt", "aten.rsqrt", "aten.log10", "aten.div", "floor division", "division toward zero",
    "aten.pow",
)  # fmt: skip


def pointwise_cases(dtype: str) -> Iterator[Case]:
    """One case per operator and breaking shape."""
    for count, k, rows in [(1, 1, 3), (1, 576, 49), (7, 65, 5), (66, 64, 300)]:
        make = partial(_embedding, count, k, rows)
        yield Case("embedding", f"n{count}-k{k}", dtype, make)
    for count, k, group in [(1, 32, 32), (3, 96, 32), (65, 256, 128), (2, 64, 64)]:
        for even_low in (False, True):
            shape = f"n{count}-k{k}-g{group}" + ("-shared" * even_low)
            make = partial(_embedding_int4, count, k, group, even_low)
            yield Case("embedding_q4gsw", shape, dtype, make)
    for name in UNARY:
        for count in (1, 65):
            yield Case(name, f"n{count}", dtype, partial(_unary, name, count))
    for name in BINARY:
        for a, b in [((1,), (1,)), ((3, 43), (3, 43)), ((5, 64), (64,)), ((2, 33), (1, 1)),
                     ((1, 7), (3, 7)), ((4, 3, 5), (3, 1)), ((1, 9, 1), (9, 70))]:  # fmt: skip
            shape = " ".join("x".join(map(str, each)) for each in (a, b))
            yield Case(name, shape, dtype, partial(_binary, name, a, b))
    for rows, k in [(1, 1), (3, 65), (66, 4)]:
        yield Case("aten.where", f"m{rows}-k{k}", dtype, partial(_where, rows, k))
        for name in REDUCTIONS:
            yield Case(name, f"m{rows}-k{k}", dtype, partial(_reduction, name, rows, k))
    yield Case("aten.full_like", "n65", dtype, partial(_full_like, 65))


def _embedding(count: int, k: int, rows: int, bench: Bench) -> Made:
    tokens = bench.put("tokens", bench.rng.integers(0, rows, count), dtype="i32")
    table = bench.normal("table", rows, k)
    y = bench.out("y", count, k)
    return [embedding(tokens, table, y)], {"y": bench["table"][bench["tokens"]]}


def _embedding_int4(count: int, k: int, group: int, even_low: bool, bench: Bench) -> Made:
    tokens = bench.put("tokens", bench.rng.integers(0, 50, count), dtype="i32")
    nibbles = bench.rng.integers(0, 16, (50, k))
    even, odd = nibbles[:, ::2], nibbles[:, 1::2]
    table = bench.put("table", odd << 4 | even if even_low else even << 4 | odd, dtype="u8")
    scales = bench.put("scales", bench.rng.uniform(0.01, 0.1, (50, k // group)))
    y = bench.out("y", count, k)
    dense = (nibbles - 8) * np.repeat(bench["scales"], group, axis=1)
    dispatches = [embedding_int4(tokens, table, scales, y, group, even_low)]
    return dispatches, {"y": dense[bench["tokens"]]}


def _numbers(bench: Bench, name: str, shape: tuple[int, ...]) -> np.ndarray:
    drawn = bench.rng.standard_normal(shape)
    if "bitwise" in name:
        return np.round(drawn * 1000)
    return np.abs(drawn) + 0.1 if name in _POSITIVE else drawn


def _unary(name: str, count: int, bench: Bench) -> Made:
    a = bench.put("a", _numbers(bench, name, (count,)))
    y = bench.out("y", count)
    return [elementwise(UNARY[name], y, a)], {"y": _FUNCTIONS[name](bench["a"])}


def _binary(name: str, a_shape: tuple[int, ...], b_shape: tuple[int, ...], bench: Bench) -> Made:
    of = "i32" if "bitwise" in name else bench.dtype
    a = bench.put("a", _numbers(bench, name, a_shape), dtype=of)
    b = bench.put("b", _numbers(bench, name, b_shape), dtype=of)
    want = _FUNCTIONS[name](bench["a"], bench["b"])
    y = bench.out("y", *want.shape, dtype=of)
    return [elementwise(BINARY[name], y, a, b)], {"y": want}


def _where(rows: int, k: int, bench: Bench) -> Made:
    """The condition per row, as integers; a single number where it is false."""
    condition = bench.put("condition", bench.rng.integers(0, 2, (rows, 1)), dtype="i32")
    a, b = bench.normal("a", rows, k), bench.normal("b", 1)
    y = bench.out("y", rows, k)
    want = np.where(bench["condition"] != 0, bench["a"], bench["b"])
    return [elementwise(WHERE, y, condition, a, b)], {"y": want}


def _full_like(count: int, bench: Bench) -> Made:
    y = bench.out("y", count)
    return [filled(y, -0.375)], {"y": np.full(count, -0.375)}


def _reduction(name: str, rows: int, k: int, bench: Bench) -> Made:
    x = bench.normal("x", rows, k)
    y = bench.out("y", rows, 1, dtype="i32" if "arg" in name else bench.dtype)
    return [reduction(name, x, [1], y)], {"y": _FUNCTIONS[name](bench["x"])[:, None]}
