"""Embedding, norm, element-wise and shape operators, and argmax, over shapes that break them."""

from collections.abc import Iterator

import numpy as np

from quatrain.runtime.wgpu.dispatch import Dispatch
from quatrain.runtime.wgpu.pointwise import (
    BINARY,
    UNARY,
    argmax,
    elementwise,
    embedding,
    embedding_int4,
    rms_norm,
    take,
)
from quatrain.runtime.wgpu.selftest.bench import Bench, Case

_FUNCTIONS = {
    "aten.sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "aten.silu": lambda a: a / (1 + np.exp(-a)),
    "aten.neg": lambda a: -a,
    "aten.exp": np.exp,
    "aten.sqrt": lambda a: np.sqrt(a),
    "aten.rsqrt": lambda a: 1 / np.sqrt(a),
    "aten.tanh": np.tanh,
    "aten.relu": lambda a: np.maximum(a, 0),
    "aten.add": lambda a, b: a + b,
    "aten.sub": lambda a, b: a - b,
    "aten.mul": lambda a, b: a * b,
    "aten.div": lambda a, b: a / b,
    "silu_mul": lambda a, b: a / (1 + np.exp(-a)) * b,
}
_POSITIVE = ("aten.sqrt", "aten.rsqrt", "aten.div")


def pointwise_cases(dtype: str) -> Iterator[Case]:
    """One case per operator and breaking shape."""
    for count, k, rows in [(1, 1, 3), (1, 576, 49), (7, 65, 5), (66, 64, 300)]:
        make = _embedding(count, k, rows, dtype)
        yield Case("embedding", f"n{count}-k{k}", dtype, make)
    for count, k, group in [(1, 32, 32), (3, 96, 32), (65, 256, 128), (2, 64, 64)]:
        for even_low in (False, True):
            shape = f"n{count}-k{k}-g{group}" + ("-shared" * even_low)
            make = _embedding_int4(count, k, group, even_low, dtype)
            yield Case("embedding_q4gsw", shape, dtype, make)
    for m, k in [(1, 1), (1, 576), (2, 31), (3, 33), (65, 128), (1, 2049)]:
        yield Case("rms_norm", f"m{m}-k{k}", dtype, _rms_norm(m, k, dtype))
    for name in UNARY:
        for count in (1, 65):
            yield Case(name, f"n{count}", dtype, _elementwise(name, count, None, dtype))
    for name in BINARY:
        for rows, columns, period in [(1, 1, 1), (3, 43, 129), (5, 64, 64), (2, 33, 1)]:
            make = _elementwise(name, rows * columns, period, dtype)
            yield Case(name, f"n{rows * columns}-b{period}", dtype, make)
    for shape, dim, start, step, length in [
        ((10, 6), 0, 3, 1, 5), ((1, 9, 65), 1, 8, 1, 1),
        ((3, 7, 2), 1, 1, 2, 3), ((4, 9), 1, 0, 1, 9),
    ]:  # fmt: skip
        text = "x".join(map(str, shape)) + f"-d{dim}-{start}-{step}-{length}"
        yield Case("slice", text, dtype, _take(shape, dim, start, step, length, dtype))
    for rows, size in [(1, 1), (2, 255), (3, 257), (1, 49152)]:
        yield Case("argmax", f"m{rows}-n{size}", dtype, _argmax(rows, size, dtype))


def _embedding(count: int, k: int, rows: int, dtype: str):
    def make(bench: Bench) -> tuple[list[Dispatch], dict[str, np.ndarray]]:
        tokens = bench.put("tokens", "i32", bench.rng.integers(0, rows, count))
        table = bench.normal("table", dtype, rows, k)
        y = bench.out("y", dtype, count, k)
        return [embedding(tokens, table, y)], {"y": bench["table"][bench["tokens"]]}

    return make


def _embedding_int4(count: int, k: int, group: int, even_low: bool, dtype: str):
    def make(bench: Bench) -> tuple[list[Dispatch], dict[str, np.ndarray]]:
        tokens = bench.put("tokens", "i32", bench.rng.integers(0, 50, count))
        nibbles = bench.rng.integers(0, 16, (50, k))
        even, odd = nibbles[:, ::2], nibbles[:, 1::2]
        table = bench.put("table", "u8", odd << 4 | even if even_low else even << 4 | odd)
        scales = bench.put("scales", dtype, bench.rng.uniform(0.01, 0.1, (50, k // group)))
        y = bench.out("y", dtype, count, k)
        dense = (nibbles - 8) * np.repeat(bench["scales"], group, axis=1)
        dispatches = [embedding_int4(tokens, table, scales, y, group, even_low)]
        return dispatches, {"y": dense[bench["tokens"]]}

    return make


def _rms_norm(m: int, k: int, dtype: str):
    def make(bench: Bench) -> tuple[list[Dispatch], dict[str, np.ndarray]]:
        x, weight = bench.normal("x", dtype, m, k), bench.normal("weight", dtype, k)
        y = bench.out("y", dtype, m, k)
        mean = np.square(bench["x"]).mean(-1, keepdims=True)
        want = bench["x"] / np.sqrt(mean + 1e-5) * bench["weight"]
        return [rms_norm(x, weight, 1e-5, y, bench.traits)], {"y": want}

    return make


def _elementwise(name: str, count: int, period: int | None, dtype: str):
    def make(bench: Bench) -> tuple[list[Dispatch], dict[str, np.ndarray]]:
        def numbers(size: int) -> np.ndarray:
            drawn = bench.rng.standard_normal(size)
            return np.abs(drawn) + 0.1 if name in _POSITIVE else drawn

        a = bench.put("a", dtype, numbers(count))
        b = bench.put("b", dtype, numbers(period)) if period else None
        y = bench.out("y", dtype, count)
        inputs = [bench["a"]] + ([np.resize(bench["b"], count)] if b else [])
        want = _FUNCTIONS[name](*inputs)
        return [elementwise((BINARY if b else UNARY)[name], a, b, y)], {"y": want}

    return make


def _take(shape: tuple[int, ...], dim: int, start: int, step: int, length: int, dtype: str):
    def make(bench: Bench) -> tuple[list[Dispatch], dict[str, np.ndarray]]:
        x = bench.normal("x", dtype, *shape)
        taken = bench["x"].take(range(start, start + step * length, step), axis=dim)
        y = bench.out("y", dtype, *taken.shape)
        return [take(x, dim, start, step, y)], {"y": taken}

    return make


def _argmax(rows: int, size: int, dtype: str):
    def make(bench: Bench) -> tuple[list[Dispatch], dict[str, np.ndarray]]:
        logits = bench.normal("logits", dtype, rows, size)
        bench.arrays["logits"][-1, [size // 3, size - 1]] = 100  # of equals the first wins
        token = bench.out("token", "u32", 1)
        want = np.array([bench["logits"][-1].argmax()])
        return [argmax(logits, rows - 1, token)], {"token": want}

    return make
