"""Handlers, as in handlers.py, of operators that move numbers or change shapes."""

from collections.abc import Callable

import numpy as np

from quatrain.errors import InputError
from quatrain.runtime.wgpu.dispatches import movement
from quatrain.runtime.wgpu.dispatches.dispatch import Dispatch, Operand
from quatrain.runtime.wgpu.dispatches.indexing import Axis, axes, broadcast_axes, strides
from quatrain.runtime.wgpu.dispatches.pointwise import filled
from quatrain.runtime.wgpu.lowering import Lowering


def _permute(to: Lowering, x: int, dims: int) -> list[Dispatch]:
    whole = to.operand(x)
    return _permuted(to, whole, [dim % len(whole.shape) for dim in to.plain(dims)])


def _transpose(to: Lowering, x: int, dim0: int, dim1: int) -> list[Dispatch]:
    whole = to.operand(x)
    order = list(range(len(whole.shape)))
    a, b = (to.number(value_id) % len(order) for value_id in (dim0, dim1))
    order[a], order[b] = order[b], order[a]
    return _permuted(to, whole, order)


def _turn(to: Lowering, x: int) -> list[Dispatch]:
    whole = to.operand(x)
    return _permuted(to, whole, list(range(len(whole.shape)))[::-1])


def _permuted(to: Lowering, x: Operand, order: list[int]) -> list[Dispatch]:
    y = to.output(tuple(x.shape[dim] for dim in order))
    return [movement.permute(x, order, y)]


def _strided(
    to: Lowering, x: Operand, given: list[Axis], shape: tuple[int, ...], start: int = 0
) -> list[Dispatch]:
    return [movement.strided(x, given, to.output(shape), start)]


def _expand(to: Lowering, x: int, size: int) -> list[Dispatch]:
    whole, sizes = to.operand(x), to.sizes(size)
    padded = (1,) * (len(sizes) - len(whole.shape)) + whole.shape
    shape = tuple(p if s == -1 else s for s, p in zip(sizes, padded, strict=True))
    return _strided(to, whole, broadcast_axes(whole.shape, shape), shape)


def _repeat(to: Lowering, x: int, repeats: int) -> list[Dispatch]:
    whole, times = to.operand(x), to.sizes(repeats)
    padded = (1,) * (len(times) - len(whole.shape)) + whole.shape
    steps = strides(padded)
    given = [
        axis
        for n, size, step in zip(times, padded, steps, strict=True)
        for axis in ((n, 0), (size, step))
    ]
    shape = tuple(n * size for n, size in zip(times, padded, strict=True))
    return _strided(to, whole, given, shape)


def _flip(to: Lowering, x: int, dims: int) -> list[Dispatch]:
    whole = to.operand(x)
    flipped = {dim % len(whole.shape) for dim in to.plain(dims)}
    straight = list(enumerate(axes(whole.shape, range(len(whole.shape)))))
    given = [(size, -step if dim in flipped else step) for dim, (size, step) in straight]
    start = sum((size - 1) * step for dim, (size, step) in straight if dim in flipped)
    return _strided(to, whole, given, whole.shape, start)


def _unfold(to: Lowering, x: int, dim: int, size: int, step: int) -> list[Dispatch]:
    whole, width, by = to.operand(x), to.number(size), to.number(step)
    along = to.axis(dim, whole)
    given = axes(whole.shape, range(len(whole.shape)))
    length, stride = given[along]
    given[along] = ((length - width) // by + 1, stride * by)
    given.append((width, stride))
    return _strided(to, whole, given, tuple(n for n, _ in given))


def _pixel_shuffle(to: Lowering, x: int, upscale_factor: int) -> list[Dispatch]:
    whole, r = to.operand(x), to.number(upscale_factor)
    *batch, channels, h, w = whole.shape
    apart = (*batch, channels // (r * r), r, r, h, w)
    n = len(batch)
    given = axes(apart, [*range(n + 1), n + 3, n + 1, n + 4, n + 2])
    return _strided(to, whole, given, (*batch, channels // (r * r), h * r, w * r))


def _pad(to: Lowering, x: int, pad: int, value: int) -> list[Dispatch]:
    """`pad` has two numbers for each dimension, from the last one on."""
    whole, around = to.operand(x), to.sizes(pad)
    if min(around, default=0) < 0:
        raise InputError(f"{to.operator.name} by {list(around)}: use --device reference")
    starts, more = [0] * len(whole.shape), [0] * len(whole.shape)
    for number in range(len(around) // 2):
        dim = len(whole.shape) - 1 - number
        starts[dim], more[dim] = around[2 * number], sum(around[2 * number : 2 * number + 2])
    y = to.output(tuple(np.add(whole.shape, more).tolist()))
    return [filled(y, to.plain(value)), movement.paste(whole, starts, y)]


def _view(to: Lowering, x: int, size: int) -> None:
    whole, shape = to.operand(x), list(to.sizes(size))
    if -1 in shape:
        rest = -int(np.prod(shape))
        shape[shape.index(-1)] = whole.count // max(1, rest)
    if int(np.prod(shape)) != whole.count:
        raise InputError(f"{to.operator.name} of {list(whole.shape)} as {shape}: another size")
    to.alias(whole, tuple(shape))


def _alias(to: Lowering, x: int) -> None:
    to.alias(to.operand(x), to.operand(x).shape)


def _unsqueeze(to: Lowering, x: int, dim: int) -> None:
    whole, place = to.operand(x), to.plain(dim)
    shape = list(whole.shape)
    shape.insert(place % (len(shape) + 1), 1)
    to.alias(whole, tuple(shape))


def _squeeze(to: Lowering, x: int, dims: int) -> None:
    whole, places = to.operand(x), to.plain(dims)
    rank = len(whole.shape)
    wanted = {dim % rank for dim in ([places] if isinstance(places, int) else places)}
    shape = (size for i, size in enumerate(whole.shape) if not (i in wanted and size == 1))
    to.alias(whole, tuple(shape))


SHAPE_HANDLERS: dict[str, Callable[..., list[Dispatch] | None]] = {
    **dict.fromkeys(("aten.permute_copy", "aten.permute"), _permute),
    "aten.transpose_copy": _transpose,
    "aten.t_copy": _turn,
    "aten.expand_copy": _expand,
    "aten.repeat": _repeat,
    "aten.flip": _flip,
    "aten.unfold_copy": _unfold,
    "aten.pixel_shuffle": _pixel_shuffle,
    "aten.constant_pad_nd": _pad,
    "aten.view_copy": _view,
    "aten.clone": _alias,
    "aten.alias_copy": _alias,
    "dim_order_ops._clone_dim_order": _alias,
    "et_vk.prepack": _alias,
    "aten.unsqueeze_copy": _unsqueeze,
    "aten.squeeze_copy": _squeeze,
}
