"""Matrix products, convolutions, softmax and layer norms, over shapes that break them."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from quatrain.runtime.wgpu.dispatches.sums import (
    Addend,
    LayerNorm,
    Window,
    convolution,
    layer_norm,
    product,
    rotate_pairs,
    softmax,
)
from quatrain.runtime.wgpu.selftest.bench import Bench, Case, Made


def sum_cases(dtype: str) -> Iterator[Case]:
    """Batches that broadcast, a mask, rows of one, channels in groups."""
    for batch, m, k, n in [((), 1, 1, 1), ((), 3, 65, 70), ((2, 3), 5, 16, 9)]:
        text = f"{'x'.join(map(str, (*batch, m, k, n)))}"
        for transposed in (False, True):
            make = partial(_product, batch, m, k, n, transposed)
            yield Case("product", text + ("-transposed" * transposed), dtype, make)
    for shape, dim in [((1, 1), 1), ((3, 70), 1), ((2, 5, 33), 1)]:
        text = f"{'x'.join(map(str, shape))}-d{dim}"
        yield Case("softmax", text, dtype, partial(_softmax, shape, dim))
    for rows, k in [(1, 1), (3, 65), (66, 4), (2, 1024)]:
        yield Case("layer_norm", f"m{rows}-k{k}", dtype, partial(_layer_norm, rows, k))
    shapes = [(1, 1, 3, 3, 1), (6, 6, 66, 4, 1), (4, 2, 9, 3, 2)]
    for channels, groups, length, width, stride in shapes:
        text = f"c{channels}-g{groups}-l{length}-k{width}-s{stride}"
        make = partial(_convolution, channels, groups, length, width, stride)
        yield Case("convolution", text, dtype, make)
    yield Case("apply_rotary_emb_interleaved", "b2-n3-c66", dtype, partial(_rotate_pairs))


def _product(
    batch: tuple[int, ...], m: int, k: int, n: int, transposed: bool, bench: Bench
) -> Made:
    """b and what is added are the same for each of the outermost batch."""
    a = bench.normal("a", *batch, m, k)
    b = bench.normal("b", *batch[1:], *((n, k) if transposed else (k, n)))
    mask = bench.normal("mask", m, n)
    y = bench.out("y", *batch, m, n)
    right = bench["b"].swapaxes(-1, -2) if transposed else bench["b"]
    want = 0.5 * bench["a"] @ right + 2 * bench["mask"]
    return [product(a, b, y, 0.5, Addend(mask, 2.0), b_transposed=transposed)], {"y": want}


def _softmax(shape: tuple[int, ...], dim: int, bench: Bench) -> Made:
    x, y = bench.normal("x", *shape), bench.out("y", *shape)
    logs = bench.out("logs", *shape)
    weights = np.exp(bench["x"] - bench["x"].max(dim, keepdims=True))
    want = weights / weights.sum(dim, keepdims=True)
    made = [softmax(x, dim, y), softmax(x, dim, logs, log=True)]
    return made, {"y": want, "logs": np.log(want)}


def _layer_norm(rows: int, k: int, bench: Bench) -> Made:
    x = bench.put("x", bench.rng.standard_normal((rows, k)) + 3)
    weight, bias = bench.normal("weight", k), bench.normal("bias", k)
    means, factors = (bench.out(name, rows, 1) for name in ("means", "factors"))
    out = LayerNorm(bench.out("y", rows, k), means, factors)
    mean, variance = bench["x"].mean(1, keepdims=True), bench["x"].var(1, keepdims=True)
    factor = 1 / np.sqrt(variance + 1e-5)
    want = (bench["x"] - mean) * factor * bench["weight"] + bench["bias"]
    made = [layer_norm(x, weight, bias, 1e-5, out)]
    return made, {"y": want, "means": mean, "factors": factor}


def _convolution(
    channels: int, groups: int, length: int, width: int, stride: int, bench: Bench
) -> Made:
    """A signal, by taps on its past: as many zeros before it as there are taps, less one."""
    window = Window((stride,), (width - 1,), (1,), groups, transposed=False)
    x = bench.normal("x", 2, channels, length)
    weight = bench.normal("w", channels, channels // groups, width)
    (size,) = window.sizes((length,), (width,), (0,))
    y = bench.out("y", 2, channels, size)
    padded = np.pad(bench["x"], ((0, 0), (0, 0), (width - 1, width - 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, width, 2)[:, :, ::stride]
    of_group = windows.reshape(2, groups, -1, size, width)
    weights = bench["w"].reshape(groups, channels // groups, -1, width)
    want = np.einsum("bgclw,gocw->bgol", of_group, weights).reshape(2, channels, size)
    return [convolution(x, weight, None, window, y)], {"y": want}


def _rotate_pairs(bench: Bench) -> Made:
    x, angles = bench.normal("x", 2, 3, 66), bench.normal("angles", 3, 66)
    y = bench.out("y", 2, 3, 66)
    rotated = bench["x"].view(np.complex128) * bench["angles"].view(np.complex128)
    return [rotate_pairs(x, angles, y)], {"y": rotated.view(np.float64)}
