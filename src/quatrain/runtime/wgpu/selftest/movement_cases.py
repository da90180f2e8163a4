"""Operators that move numbers, over shapes that break them."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from quatrain.runtime.wgpu.dispatches.movement import gather, permute, put, take
from quatrain.runtime.wgpu.selftest.bench import Bench, Case, Made


def movement_cases(dtype: str) -> Iterator[Case]:
    """Slices, gathers, concatenations and permutations along each dimension."""
    for shape, dim, start, step, length in [
        ((10, 6), 0, 3, 1, 5), ((1, 9, 65), 1, 8, 1, 1),
        ((3, 7, 2), 1, 1, 2, 3), ((4, 9), 1, 0, 1, 9),
        ((70_000, 1), 0, 1, 1, 69_999),  # more rows than a grid has places along a dimension
    ]:  # fmt: skip
        text = f"{_text(shape)}-d{dim}-{start}-{step}-{length}"
        yield Case("slice", text, dtype, partial(_take, shape, dim, start, step, length))
    for shape, dim, length in [((10, 6), 0, 7), ((2, 9, 65), 1, 1), ((3, 70), 1, 141)]:
        text = f"{_text(shape)}-d{dim}-{length}"
        yield Case("index_select", text, dtype, partial(_gather, shape, dim, length))
    for shapes, dim in [([(3, 5), (1, 5)], 0), ([(2, 3, 65), (2, 1, 65), (2, 4, 65)], 1),
                        ([(1, 66), (1, 1)], 1), ([(70_000, 1), (1, 1)], 0)]:  # fmt: skip
        text = f"{' '.join(map(_text, shapes))}-d{dim}"
        yield Case("cat", text, dtype, partial(_cat, shapes, dim))
    for shape, order in [((3, 5), (1, 0)), ((1, 7, 3, 8), (0, 2, 1, 3)), ((2, 3, 23), (2, 0, 1))]:
        text = f"{_text(shape)}-{_text(order)}"
        yield Case("permute", text, dtype, partial(_permute, shape, order))


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _take(
    shape: tuple[int, ...], dim: int, start: int, step: int, length: int, bench: Bench
) -> Made:
    x = bench.normal("x", *shape)
    taken = bench["x"].take(range(start, start + step * length, step), axis=dim)
    y = bench.out("y", *taken.shape)
    return [take(x, dim, start, step, y)], {"y": taken}


def _gather(shape: tuple[int, ...], dim: int, length: int, bench: Bench) -> Made:
    x = bench.normal("x", *shape)
    index = bench.put("index", bench.rng.integers(0, shape[dim], length), dtype="i32")
    taken = bench["x"].take(bench["index"], axis=dim)
    y = bench.out("y", *taken.shape)
    return [gather(x, dim, index, y)], {"y": taken}


def _cat(shapes: list[tuple[int, ...]], dim: int, bench: Bench) -> Made:
    parts = [bench.normal(f"x{i}", *shape) for i, shape in enumerate(shapes)]
    joined = np.concatenate([bench[f"x{i}"] for i in range(len(shapes))], axis=dim)
    y = bench.out("y", *joined.shape)
    starts = np.cumsum([0] + [shape[dim] for shape in shapes]).tolist()
    made = [put(part, dim, at, y) for part, at in zip(parts, starts, strict=False)]
    return made, {"y": joined}


def _permute(shape: tuple[int, ...], order: tuple[int, ...], bench: Bench) -> Made:
    x = bench.normal("x", *shape)
    permuted = bench["x"].transpose(order)
    y = bench.out("y", *permuted.shape)
    return [permute(x, list(order), y)], {"y": permuted}
