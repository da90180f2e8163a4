"""Handlers, as in operators.py, of element-wise operators, reductions and changes of shape."""

from collections.abc import Callable
from itertools import zip_longest

import numpy as np

from quatrain.errors import InputError
from quatrain.program import Operator, Plain, ValueList
from quatrain.runtime.wgpu import movement
from quatrain.runtime.wgpu.dispatch import Dispatch, Operand
from quatrain.runtime.wgpu.lowering import Lowering
from quatrain.runtime.wgpu.pointwise import (
    BINARY,
    DIVISIONS,
    REDUCTIONS,
    UNARY,
    WHERE,
    elementwise,
    literal,
    reduction,
)

# WGSL by the type that a tensor is converted to.
_CONVERSIONS = {
    **dict.fromkeys(("float32", "float16", "int32"), "a"),
    "bool": "select(0.0, 1.0, a != 0.0)",
}


def _elementwise(to: Lowering, operator: Operator, expression: str, *values: int) -> list[Dispatch]:
    inputs = [to.operand(value_id) for value_id in values]
    return [elementwise(expression, to.declare(operator.out, _broadcast(inputs)), *inputs)]


def _unary(to: Lowering, operator: Operator, x: int) -> list[Dispatch]:
    return _elementwise(to, operator, UNARY[operator.kind], x)


def _binary(to: Lowering, operator: Operator, a: int, b: int) -> list[Dispatch]:
    expression = BINARY[operator.kind]
    if not to.has_tensor(b):
        return _elementwise(to, operator, expression.replace("b", literal(to.plain(b))), a)
    return _elementwise(to, operator, expression, a, b)


def _sum_or_difference(
    to: Lowering, operator: Operator, a: int, b: int, alpha: int
) -> list[Dispatch]:
    expression, factor = BINARY[operator.kind], to.plain(alpha)
    if factor != 1:
        expression = expression.replace("b", f"{float(factor)} * b")
    return _elementwise(to, operator, expression, a, b)


def _divide(
    to: Lowering, operator: Operator, a: int, b: int, rounding_mode: int | None = None
) -> list[Dispatch]:
    mode = None if rounding_mode is None else to.plain(rounding_mode)
    return _elementwise(to, operator, BINARY[DIVISIONS[mode]], a, b)


def _where(to: Lowering, operator: Operator, condition: int, a: int, b: int) -> list[Dispatch]:
    return _elementwise(to, operator, WHERE, condition, a, b)


def _silu_mul(to: Lowering, operator: Operator) -> list[Dispatch]:
    """See `fuse.fuse`."""
    return _elementwise(to, operator, BINARY["silu_mul"], *operator.args[:-1])


def _gelu(to: Lowering, operator: Operator, x: int, approximate: int) -> list[Dispatch]:
    mode = to.plain(approximate)
    if mode != "tanh":
        raise InputError(
            f"{operator.name} without the approximation by tanh ({mode!r}): the GPU kernel "
            "knows that one only, as ExecuTorch's own. Use --device reference."
        )
    return _unary(to, operator, x)


def _broadcast(inputs: list[Operand]) -> tuple[int, ...]:
    """The shape that all inputs broadcast to: along each dimension the size that is not 1."""
    columns = zip_longest(*(reversed(x.shape) for x in inputs), fillvalue=1)
    sizes = [next((size for size in column if size != 1), 1) for column in columns]
    return tuple(reversed(sizes))


def _full_like(to: Lowering, operator: Operator, x: int, fill_value: int) -> list[Dispatch]:
    y = to.declare(operator.out, to.operand(x).shape)
    return [elementwise(literal(to.plain(fill_value)), y)]


def _reduce(to: Lowering, operator: Operator, x: int, dims: int, keepdim: int) -> list[Dispatch]:
    whole, over = to.operand(x), to.plain(dims)
    rank = len(whole.shape)
    if over is None or over == () or over == []:
        over = range(rank)
    reduced = sorted(dim % rank for dim in ([over] if isinstance(over, int) else over))
    if reduced != list(range(rank - len(reduced), rank)):
        raise InputError(
            f"{operator.name} over the dimensions {reduced} of {rank}: the GPU kernel reduces the "
            "last ones only. Use --device reference."
        )
    kept = (1,) * len(reduced) if to.plain(keepdim) else ()
    y = to.declare(operator.out, (*whole.shape[: rank - len(reduced)], *kept))
    return [reduction(operator.kind, whole, y)]


def _slice(
    to: Lowering, operator: Operator, x: int, dim: int, start: int, end: int, step: int
) -> list[Dispatch]:
    whole, stride = to.operand(x), to.number(step)
    along = to.number(dim) % len(whole.shape)

    def end_of(value_id: int) -> int | None:
        absent = isinstance(to.graph.values[value_id], Plain) and to.plain(value_id) is None
        return None if absent else to.number(value_id)

    begin, stop, _ = slice(end_of(start), end_of(end)).indices(whole.shape[along])
    length = len(range(begin, stop, stride))
    fixed = isinstance(to.graph.values[start], Plain)
    if fixed and (begin, length) == (0, whole.shape[along]):
        return to.alias(operator, whole, whole.shape) or []
    y = to.declare(operator.out, (*whole.shape[:along], length, *whole.shape[along + 1 :]))
    if y.count == 0:
        return []
    first = begin if fixed else to.bounded(start, length * stride, whole.shape[along])
    return [movement.take(whole, along, first, stride, y)]


def _select(to: Lowering, operator: Operator, x: int, dim: int, index: int) -> list[Dispatch]:
    whole = to.operand(x)
    along = to.number(dim) % len(whole.shape)
    at = to.number(index) % whole.shape[along]
    shape = (*whole.shape[:along], *whole.shape[along + 1 :])
    if whole.shape[along] == 1:
        return to.alias(operator, whole, shape) or []
    return [movement.take(whole, along, at, 1, to.declare(operator.out, shape))]


def _index_select(to: Lowering, operator: Operator, x: int, dim: int, index: int) -> list[Dispatch]:
    whole, places = to.operand(x), to.operand(index)
    along = to.number(dim) % len(whole.shape)
    shape = (*whole.shape[:along], places.count, *whole.shape[along + 1 :])
    return [movement.gather(whole, along, places, to.declare(operator.out, shape))]


def _cat(to: Lowering, operator: Operator, tensors: int, dim: int) -> list[Dispatch]:
    listed = to.graph.values[tensors]
    if not isinstance(listed, ValueList):
        raise InputError(f"{operator.name} of {listed}, expected a list of tensors")
    parts = [to.operand(value_id) for value_id in listed.items]
    shape = list(parts[0].shape)
    along = to.number(dim) % len(shape)
    shape[along] = sum(part.shape[along] for part in parts)
    y = to.declare(operator.out, tuple(shape))
    starts = np.cumsum([0, *(part.shape[along] for part in parts[:-1])]).tolist()
    return [movement.put(part, along, at, y) for part, at in zip(parts, starts, strict=True)]


def _permute(to: Lowering, operator: Operator, x: int, dims: int) -> list[Dispatch]:
    whole = to.operand(x)
    order = tuple(dim % len(whole.shape) for dim in to.plain(dims))
    y = to.declare(operator.out, tuple(whole.shape[dim] for dim in order))
    return [movement.permute(whole, order, y)]


def _transpose(to: Lowering, operator: Operator, x: int, dim0: int, dim1: int) -> list[Dispatch]:
    whole = to.operand(x)
    order = list(range(len(whole.shape)))
    a, b = (to.number(value_id) % len(order) for value_id in (dim0, dim1))
    order[a], order[b] = order[b], order[a]
    y = to.declare(operator.out, tuple(whole.shape[dim] for dim in order))
    return [movement.permute(whole, tuple(order), y)]


def _view(to: Lowering, operator: Operator, x: int, size: int) -> None:
    whole, sizes = to.operand(x), to.graph.values[size]
    if isinstance(sizes, ValueList):
        shape = [to.number(item) for item in sizes.items]
    else:
        shape = list(to.plain(size))
    if -1 in shape:
        rest = -int(np.prod(shape))
        shape[shape.index(-1)] = whole.count // max(1, rest)
    if int(np.prod(shape)) != whole.count:
        raise InputError(f"{operator.name} of {list(whole.shape)} as {shape}: another size")
    to.alias(operator, whole, tuple(shape))


def _same(to: Lowering, operator: Operator, x: int) -> None:
    to.alias(operator, to.operand(x), to.operand(x).shape)


def _converted(to: Lowering, operator: Operator, x: int) -> list[Dispatch]:
    """x in the type that the graph declares for the output."""
    source, target = to.graph.tensor(x).dtype, to.graph.tensor(operator.out).dtype
    whole = to.operand(x)
    if source == target:
        return to.alias(operator, whole, whole.shape) or []
    if source in ("int64", "int8", "uint8") or target not in _CONVERSIONS:
        raise InputError(f"{operator.name} of {source} to {target}: use --device reference")
    return _elementwise(to, operator, _CONVERSIONS[target], x)


def _unsqueeze(to: Lowering, operator: Operator, x: int, dim: int) -> None:
    whole, place = to.operand(x), to.plain(dim)
    shape = list(whole.shape)
    shape.insert(place % (len(shape) + 1), 1)
    to.alias(operator, whole, tuple(shape))


def _squeeze(to: Lowering, operator: Operator, x: int, dims: int) -> None:
    whole, places = to.operand(x), to.plain(dims)
    rank = len(whole.shape)
    wanted = {dim % rank for dim in ([places] if isinstance(places, int) else places)}
    shape = (size for i, size in enumerate(whole.shape) if not (i in wanted and size == 1))
    to.alias(operator, whole, tuple(shape))


SHAPE_HANDLERS: dict[str, Callable[..., list[Dispatch] | None]] = {
    "aten.slice_copy": _slice,
    "aten.select_copy": _select,
    "aten.index_select": _index_select,
    "aten.cat": _cat,
    "aten.permute_copy": _permute,
    "aten.transpose_copy": _transpose,
    "aten.view_copy": _view,
    "aten.clone": _same,
    "dim_order_ops._clone_dim_order": _same,
    "dim_order_ops._to_dim_order_copy": _converted,
    "et_vk.prepack": _same,
    "aten.unsqueeze_copy": _unsqueeze,
    "aten.squeeze_copy": _squeeze,
    "aten.full_like": _full_like,
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(("aten.mul", "aten.minimum", "aten.logical_and", "aten.logical_or"), _binary),
    **dict.fromkeys(("aten.ge", "aten.gt", "aten.le", "aten.lt", "aten.eq"), _binary),
    **dict.fromkeys(("aten.add", "aten.sub"), _sum_or_difference),
    "aten.div": _divide,
    "aten.where": _where,
    "silu_mul": _silu_mul,
    "aten.gelu": _gelu,
    **dict.fromkeys(REDUCTIONS, _reduce),
}
