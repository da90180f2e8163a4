"""Handlers, as in handlers.py, of operators that take parts of tensors or put tensors together."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from quatrain.errors import InputError
from quatrain.program import Plain, ValueList
from quatrain.runtime.calls.order import sliced
from quatrain.runtime.wgpu.dispatches import movement
from quatrain.runtime.wgpu.dispatches.dispatch import Dispatch
from quatrain.runtime.wgpu.lowering import Lowering
from quatrain.runtime.wgpu.symbols import number


def _slice(to: Lowering, x: int, dim: int, start: int, end: int, step: int) -> list[Dispatch]:
    whole, stride = to.operand(x), to.number(step)
    along = to.axis(dim, whole)

    def taken(symbols: Mapping[int, int]) -> range:
        first, last = (
            None if to.graph.values[i] == Plain("null") else number(to.graph, i, symbols)
            for i in (start, end)
        )
        begin, stop = sliced(first, last, whole.shape[along])
        return range(begin, stop, stride)

    begin = taken(to.result.symbols).start
    length = to.assume(lambda symbols: len(taken(symbols)))
    fixed = isinstance(to.graph.values[start], Plain)
    if fixed and (begin, length) == (0, whole.shape[along]):
        return to.alias(whole, whole.shape) or []
    y = to.output((*whole.shape[:along], length, *whole.shape[along + 1 :]))
    if y.count == 0:
        return []
    first = begin if fixed else to.bounded(start, length * stride, whole.shape[along])
    return [movement.take(whole, along, first, stride, y)]


def _select(to: Lowering, x: int, dim: int, index: int) -> list[Dispatch]:
    whole = to.operand(x)
    along = to.axis(dim, whole)
    at = to.number(index) % whole.shape[along]
    shape = (*whole.shape[:along], *whole.shape[along + 1 :])
    if whole.shape[along] == 1:
        return to.alias(whole, shape) or []
    return [movement.take(whole, along, at, 1, to.output(shape))]


def _index_select(to: Lowering, x: int, dim: int, index: int) -> list[Dispatch]:
    whole, places = to.operand(x), to.operand(index)
    along = to.axis(dim, whole)
    shape = (*whole.shape[:along], places.count, *whole.shape[along + 1 :])
    return [movement.gather(whole, along, places, to.output(shape))]


def _index(to: Lowering, x: int, indices: int) -> list[Dispatch]:
    """By one tensor of positions, along any dimension."""
    listed = to.graph.values[indices]
    items = listed.items if isinstance(listed, ValueList) else ()
    given = [dim for dim, item in enumerate(items) if to.has_tensor(item)]
    if len(given) != 1 or to.graph.tensor(items[given[0]]).dtype == "bool":
        raise InputError(
            f"{to.operator.name} by other than one tensor of positions: use --device reference"
        )
    whole, along, places = to.operand(x), given[0], to.operand(items[given[0]])
    shape = (*whole.shape[:along], *places.shape, *whole.shape[along + 1 :])
    return [movement.gather(whole, along, places, to.output(shape))]


def _gather(to: Lowering, x: int, dim: int, index: int) -> list[Dispatch]:
    whole, places = to.operand(x), to.operand(index)
    along = to.axis(dim, whole)
    return [movement.gather_each(whole, along, places, to.output(places.shape))]


def _cat(to: Lowering, tensors: int, dim: int) -> list[Dispatch]:
    listed = to.graph.values[tensors]
    if not isinstance(listed, ValueList):
        raise InputError(f"{to.operator.name} of {listed}, expected a list of tensors")
    parts = [to.operand(value_id) for value_id in listed.items]
    shape = list(parts[0].shape)
    along = to.number(dim) % len(shape)
    shape[along] = sum(part.shape[along] for part in parts)
    y = to.output(tuple(shape))
    starts = np.cumsum([0, *(part.shape[along] for part in parts[:-1])]).tolist()
    return [movement.put(part, along, at, y) for part, at in zip(parts, starts, strict=True)]


def _split(to: Lowering, x: int, split_sizes: int, dim: int) -> list[Dispatch]:
    return _pieces(to, x, to.sizes(split_sizes), dim)


def _split_evenly(to: Lowering, x: int, split_size: int, dim: int) -> list[Dispatch]:
    whole, size = to.operand(x), to.number(split_size)
    length = whole.shape[to.number(dim)]
    return _pieces(to, x, [min(size, length - at) for at in range(0, length, size)], dim)


def _pieces(to: Lowering, x: int, sizes: Sequence[int], dim: int) -> list[Dispatch]:
    whole, start, made = to.operand(x), 0, []
    along = to.axis(dim, whole)
    for out, size in zip(to.outputs, sizes, strict=True):
        y = to.declare(out, (*whole.shape[:along], size, *whole.shape[along + 1 :]))
        made.append(movement.take(whole, along, start, 1, y))
        start += size
    return made


SELECTION_HANDLERS: dict[str, Callable[..., list[Dispatch] | None]] = {
    "aten.slice_copy": _slice,
    "aten.select_copy": _select,
    "aten.index_select": _index_select,
    "aten.index": _index,
    "aten.gather": _gather,
    "aten.cat": _cat,
    "aten.split_with_sizes_copy": _split,
    "aten.split_copy": _split_evenly,
}
