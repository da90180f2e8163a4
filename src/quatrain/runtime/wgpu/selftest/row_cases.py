"""Norms and the quantization of activations, joined and apart, over shapes that break them."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from quatrain.arithmetic import VULKAN_ARITHMETIC
from quatrain.multiples import up_to
from quatrain.runtime.wgpu.dispatches.pointwise import BINARY
from quatrain.runtime.wgpu.dispatches.rows import Join, Norm, Quantized, Row, quantize_activation
from quatrain.runtime.wgpu.selftest.bench import NUMPY, Bench, Case, Made

# (M, K): tokens, channels.
_SHAPES = [(1, 1), (1, 7), (2, 31), (3, 33), (1, 576), (5, 129), (70, 16), (1, 2049)]
_JOINED = {
    "aten.add": lambda a, b: a + b,
    "silu_mul": lambda a, b: a / (1 + np.exp(-a)) * b,
}


def row_cases(dtype: str) -> Iterator[Case]:
    """Each step by itself, and with all steps that may be fused with it."""
    for m, k in _SHAPES:
        shape = f"m{m}-k{k}"
        yield Case("rms_norm", shape, dtype, partial(_row, m, k, norm=True))
        summed = partial(_row, m, k, join="aten.add", norm=True)
        yield Case("rms_norm", f"{shape}-sum", dtype, summed)
        yield Case("choose_qparams", shape, dtype, partial(_row, m, k, int8=True))
        yield Case("quantize_activation", shape, dtype, partial(_given, m, k))
    # The norms of many heads of a long prompt: more rows than a grid has places along a dimension.
    yield Case("rms_norm", "m70000-k1", dtype, partial(_row, 70_000, 1, norm=True))
    # Where what is quantized is computed here, one integer of many may fall the other way.
    for m, k in [(1, 2049), (70, 64)]:
        shape = f"m{m}-k{k}"
        make = partial(_row, m, k, join="silu_mul", int8=True)
        yield Case("choose_qparams", f"{shape}-gated", dtype, make)
        for join in ("", "aten.add"):
            make = partial(_row, m, k, join=join, norm=True, int8=True)
            yield Case("choose_qparams", f"{shape}-norm" + "-sum" * bool(join), dtype, make)


def _row(
    m: int, k: int, bench: Bench, join: str = "", norm: bool = False, int8: bool = False
) -> Made:
    want: dict[str, np.ndarray] = {}
    made = None
    if join:
        made = Join(BINARY[join], *(bench.normal(name, m, k) for name in "ab"))
        x = bench.out("x", m, k)
        last = want["x"] = _JOINED[join](bench["a"], bench["b"])
    else:
        x = bench.normal("x", m, k)
        last = bench["x"]
    normed = None
    if norm:
        weight = bench.normal("weight", k)
        normed = Norm(weight, 1e-5, bench.out("y", m, k))
        mean = np.square(last).mean(-1, keepdims=True)
        last = want["y"] = last / np.sqrt(mean + 1e-5) * bench["weight"]
    out = None
    if int8:
        out = int8_operands(bench, m, k)
        scale, zero, integers = quantized(last.astype(NUMPY[bench.dtype]))
        want |= {"packed": _packed(integers), "x_scale": scale, "x_zero": zero}
    return [Row(x, made, normed, out).dispatch(bench.traits)], want


def _given(m: int, k: int, bench: Bench) -> Made:
    x = bench.normal("x", m, k)
    scale, zero, integers = quantized(bench.arrays["x"])
    out = int8_operands(bench, m, k)
    bench.put("x_scale", scale)
    bench.put("x_zero", zero, dtype="i32")
    return [quantize_activation(x, out)], {"packed": _packed(integers)}


def int8_operands(bench: Bench, m: int, k: int) -> Quantized:
    """Operands for x [m, k] in int8, to be written."""
    return Quantized(
        packed=bench.out("packed", m, up_to(k, 8) // 4, dtype="u32"),
        scale=bench.out("x_scale", m),
        zero=bench.out("x_zero", m, dtype="i32"),
    )


def _packed(integers: np.ndarray) -> np.ndarray:
    """int8 [M, K] in the order of the kernels: of each eight, the even and then the odd ones."""
    m, k = integers.shape
    padded = np.zeros((m, up_to(k, 8)), np.int8)
    padded[:, :k] = integers
    return padded.reshape(m, -1, 4, 2).swapaxes(2, 3).reshape(m, -1)


def quantized(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scale, zero point [M] and int8 values [M, K] of x [M, K], as in the Vulkan runtime.

    In float32 rather than float64: a value half way between two integers must fall the same way.
    """
    wide = x.astype(np.float32)
    low, high = np.minimum(wide.min(1), 0), np.maximum(wide.max(1), 0)
    exact = (high - low) / np.float32(255)
    exact = np.where(exact > 0, exact, np.float32(0.1))
    below, above = low / exact, high / exact
    end = np.where(128 + below < 127 - above, -128 - below, 127 - above)
    zero = np.clip(np.round(end), -128, 127)
    scale = np.maximum(exact, np.float32(VULKAN_ARITHMETIC.smallest_scale)).astype(x.dtype)
    inverse = np.float32(1) / scale.astype(np.float32)
    integers = np.clip(np.round(wide * inverse[:, None]) + zero[:, None], -128, 127)
    return scale, zero.astype(np.int64), integers.astype(np.int64)
