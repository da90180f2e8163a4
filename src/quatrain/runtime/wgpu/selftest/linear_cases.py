"""The linears, over shapes that break them."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from quatrain.multiples import up_to
from quatrain.runtime.wgpu.dispatches.dispatch import Traits
from quatrain.runtime.wgpu.dispatches.linear import Weights, float_linear, int4_linear
from quatrain.runtime.wgpu.dispatches.rows import Row
from quatrain.runtime.wgpu.selftest.bench import Bench, Case, Made
from quatrain.runtime.wgpu.selftest.row_cases import int8_operands, quantized

# (M, K, N, group): tokens, inputs, outputs, group.
_SHAPES = [
    (1, 32, 1, 32),
    (1, 64, 7, 32),
    (1, 576, 192, 32),
    (1, 96, 257, 32),
    (1, 512, 130, 256),
    (1, 48, 66, 16),
    (2, 80, 33, 16),
    (7, 96, 10, 48),
    (1, 1536, 66, 64),
    (2, 128, 33, 128),
    (3, 256, 64, 64),
    (4, 96, 63, 32),
    (5, 64, 65, 64),
    (65, 32, 9, 32),  # more tokens than inputs
    (17, 512, 31, 256),
    (1, 36, 10, 12),  # K not a multiple of 8
    (3, 100, 5, 20),
    (2, 36, 9, 36),
]


def linear_cases(dtype: str) -> Iterator[Case]:
    """Both int4 linears, with and without bias, by every kernel that can serve the shape."""
    for m, k, n, group in _SHAPES:
        for int8 in (False, True):
            name = "linear_dq8ca_q4gsw" if int8 else "linear_q4gsw"
            for bias in (False, True) if n in (7, 33, 10) else (False,):
                shape = f"m{m}-k{k}-n{n}-g{group}" + ("-bias" * bias)
                yield Case(name, shape, dtype, partial(_linear, m, k, n, group, int8, bias))
            if m > 1 and dtype == "f16" and not int8:
                make = partial(_linear, m, k, n, group, int8, n == 33, half_sums=True)
                yield Case(name, f"m{m}-k{k}-n{n}-g{group}-half-sums", dtype, make)
            if m == 1 and group % 16 == 0:
                shape = f"m{m}-k{k}-n{n}-g{group}-other"
                make = partial(_linear, m, k, n, group, int8, False, other=True)
                yield Case(name, shape, dtype, make)
    # The last one has more rows than a grid has places along a dimension.
    for m, k, n in [(1, 1, 1), (1, 576, 65), (3, 7, 66), (66, 33, 5), (70_000, 1, 1)]:
        for bias in (False, True):
            shape = f"m{m}-k{k}-n{n}" + ("-bias" * bias)
            yield Case("linear", shape, dtype, partial(_float_linear, m, k, n, bias))


def _linear(
    m: int, k: int, n: int, group: int, int8: bool, bias: bool, bench: Bench,
    other: bool = False, half_sums: bool = False,
) -> Made:  # fmt: skip
    traits = bench.traits
    if other:  # the kernels that this device would not choose
        traits = Traits(cpu=not traits.cpu, spread=False)
    x = bench.normal("x", m, k)
    weights, dense = random_weights(bench, n, k, group, bias)
    y = bench.out("y", m, n)
    if not int8:
        want = bench["x"] @ dense.T + (bench["bias"][:n] if bias else 0)
        return [int4_linear(x, weights, y, traits, half_sums=half_sums)], {"y": want}
    scale, zero, integers = quantized(bench.arrays["x"])
    out = int8_operands(bench, m, k)
    real = scale.astype(np.float64)[:, None] * (integers - zero[:, None])
    want = real @ dense.T + (bench["bias"][:n] if bias else 0)
    first = Row(x, quantized=out).dispatch(traits)
    return [first, int4_linear(x, weights, y, traits, out)], {"y": want}


def _float_linear(m: int, k: int, n: int, bias: bool, bench: Bench) -> Made:
    x, weight = bench.normal("x", m, k), bench.normal("weight", n, k)
    added = bench.normal("bias", n) if bias else None
    y = bench.out("y", m, n)
    want = bench["x"] @ bench["weight"].T + (bench["bias"] if bias else 0)
    return [float_linear(x, weight, added, y)], {"y": want}


def random_weights(
    bench: Bench, n: int, k: int, group: int, bias: bool
) -> tuple[Weights, np.ndarray]:
    """Random weights as the artifact stores them, and dense in float64 [N, K]."""
    integers = bench.rng.integers(-8, 8, (n, k))
    groups, padded_n = k // group, up_to(n, 4)
    scales = np.full((groups, padded_n), np.nan)
    scales[:, :n] = bench.rng.uniform(0.01, 0.1, (groups, n))
    sums = np.zeros((groups, padded_n))
    sums[:, :n] = integers.reshape(n, groups, group).sum(-1).T
    nibbles = np.full((n, up_to(k, 8)), 8)
    nibbles[:, :k] = integers + 8
    weights = Weights(
        packed=bench.put("w", nibbles[:, 1::2] << 4 | nibbles[:, ::2], dtype="u8"),
        scales=bench.put("scales", scales),
        group=group,
        sums=bench.put("sums", sums, dtype="i32"),
        bias=bench.normal("bias", padded_n) if bias else None,
    )
    return weights, integers * np.repeat(bench["scales"][:, :n].T, group, axis=1)
