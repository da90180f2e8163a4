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
    REDUCTIONS,
    UNARY,
    WHERE,
    elementwise,
    literal,
    reduction,
)


def _elementwise(to: Lowering, operator: Operator) -> list[Dispatch]:
    kind, args = operator.kind, operator.named_args
    expression = UNARY.get(kind) or BINARY.get(kind) or WHERE
    arity = 1 if kind in UNARY else 2 if kind in BINARY else 3
    inputs = [to.operand(value_id) for value_id in operator.args[:arity]]
    if "alpha" in args and to.plain(args["alpha"]) != 1:
        expression = expression.replace("b", f"{float(to.plain(args['alpha']))} * b")
    y = to.declare(operator.out, _broadcast(inputs))
    return [elementwise(expression, y, *inputs)]


def _gelu(to: Lowering, operator: Operator) -> list[Dispatch]:
    approximate = to.plain(operator.named_args["approximate"])
    if approximate != "tanh":
        raise InputError(
            f"{operator.name} without the approximation by tanh ({approximate!r}): the GPU kernel "
            "knows that one only, as ExecuTorch's own. Use --device reference."
        )
    return _elementwise(to, operator)


def _broadcast(inputs: list[Operand]) -> tuple[int, ...]:
    """The shape that all inputs broadcast to: along each dimension the size that is not 1."""
    columns = zip_longest(*(reversed(x.shape) for x in inputs), fillvalue=1)
    sizes = [next((size for size in column if size != 1), 1) for column in columns]
    return tuple(reversed(sizes))


def _full_like(to: Lowering, operator: Operator) -> list[Dispatch]:
    y = to.declare(operator.out, to.operand(operator.args[0]).shape)
    return [elementwise(literal(to.plain(operator.args[1])), y)]


def _reduce(to: Lowering, operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    x = to.operand(args["x"])
    rank, dims = len(x.shape), to.plain(args["dims"])
    dims = sorted(dim % rank for dim in ([dims] if isinstance(dims, int) else dims))
    if dims != list(range(rank - len(dims), rank)):
        raise InputError(
            f"{operator.name} over the dimensions {dims} of {rank}: the GPU kernel reduces the "
            "last ones only. Use --device reference."
        )
    kept = (1,) * len(dims) if to.plain(args["keepdim"]) else ()
    y = to.declare(operator.out, (*x.shape[: dims[0]], *kept))
    return [reduction(operator.kind, x, y)]


def _slice(to: Lowering, operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    x, step = to.operand(args["x"]), to.number(args["step"])
    dim = to.number(args["dim"]) % len(x.shape)

    def end_of(name: str) -> int | None:
        absent = isinstance(to.graph.values[args[name]], Plain) and to.plain(args[name]) is None
        return None if absent else to.number(args[name])

    begin, end, _ = slice(end_of("start"), end_of("end")).indices(x.shape[dim])
    length = len(range(begin, end, step))
    fixed = isinstance(to.graph.values[args["start"]], Plain)
    if fixed and (begin, length) == (0, x.shape[dim]):
        return to.alias(operator, x, x.shape) or []
    y = to.declare(operator.out, (*x.shape[:dim], length, *x.shape[dim + 1 :]))
    if y.count == 0:
        return []
    start = begin
    if not fixed:
        start = to.bounded(args["start"], length * step, x.shape[dim])
    return [movement.take(x, dim, start, step, y)]


def _select(to: Lowering, operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    x = to.operand(args["x"])
    dim = to.number(args["dim"]) % len(x.shape)
    index = to.number(args["index"]) % x.shape[dim]
    shape = (*x.shape[:dim], *x.shape[dim + 1 :])
    if x.shape[dim] == 1:
        return to.alias(operator, x, shape) or []
    return [movement.take(x, dim, index, 1, to.declare(operator.out, shape))]


def _index_select(to: Lowering, operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    x, index = to.operand(args["x"]), to.operand(args["index"])
    dim = to.number(args["dim"]) % len(x.shape)
    y = to.declare(operator.out, (*x.shape[:dim], index.count, *x.shape[dim + 1 :]))
    return [movement.gather(x, dim, index, y)]


def _cat(to: Lowering, operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    listed = to.graph.values[args["tensors"]]
    if not isinstance(listed, ValueList):
        raise InputError(f"{operator.name} of {listed}, expected a list of tensors")
    parts = [to.operand(value_id) for value_id in listed.items]
    shape = list(parts[0].shape)
    dim = to.number(args["dim"]) % len(shape)
    shape[dim] = sum(part.shape[dim] for part in parts)
    y = to.declare(operator.out, tuple(shape))
    starts = np.cumsum([0, *(part.shape[dim] for part in parts[:-1])]).tolist()
    return [movement.put(part, dim, at, y) for part, at in zip(parts, starts, strict=True)]


def _permute(to: Lowering, operator: Operator) -> list[Dispatch]:
    x = to.operand(operator.args[0])
    rank = len(x.shape)
    order = list(range(rank))
    if operator.kind == "aten.permute_copy":
        order = [dim % rank for dim in to.plain(operator.args[1])]
    else:
        a, b = (to.number(value_id) % rank for value_id in operator.args[1:3])
        order[a], order[b] = order[b], order[a]
    y = to.declare(operator.out, tuple(x.shape[dim] for dim in order))
    return [movement.permute(x, tuple(order), y)]


def _view(to: Lowering, operator: Operator) -> None:
    args = operator.named_args
    x = to.operand(args["x"])
    size = to.graph.values[args["size"]]
    if isinstance(size, ValueList):
        shape = [to.number(item) for item in size.items]
    else:
        shape = list(to.plain(args["size"]))
    if -1 in shape:
        rest = -int(np.prod(shape))
        shape[shape.index(-1)] = x.count // max(1, rest)
    if int(np.prod(shape)) != x.count:
        raise InputError(f"{operator.name} of {list(x.shape)} as {shape}: another size")
    to.alias(operator, x, tuple(shape))


def _same(to: Lowering, operator: Operator) -> None:
    x = to.operand(operator.args[0])
    to.alias(operator, x, x.shape)


def _reshaped(to: Lowering, operator: Operator) -> None:
    """squeeze, unsqueeze: the rank is the declared one, sizes of 1 come and go."""
    x = to.operand(operator.args[0])
    dims = to.plain(operator.args[1])
    shape = list(x.shape)
    if operator.kind == "aten.unsqueeze_copy":
        shape.insert(dims % (len(shape) + 1), 1)
    else:
        wanted = {d % len(shape) for d in ([dims] if isinstance(dims, int) else dims)}
        shape = [size for i, size in enumerate(shape) if not (i in wanted and size == 1)]
    to.alias(operator, x, tuple(shape))


SHAPE_HANDLERS: dict[str, Callable[[Lowering, Operator], list[Dispatch] | None]] = {
    "aten.slice_copy": _slice,
    "aten.select_copy": _select,
    "aten.index_select": _index_select,
    "aten.cat": _cat,
    "aten.permute_copy": _permute,
    "aten.transpose_copy": _permute,
    "aten.view_copy": _view,
    "aten.clone": _same,
    "dim_order_ops._clone_dim_order": _same,
    "et_vk.prepack": _same,
    "aten.unsqueeze_copy": _reshaped,
    "aten.squeeze_copy": _reshaped,
    "aten.full_like": _full_like,
    **dict.fromkeys([*UNARY, *BINARY, "aten.where"], _elementwise),
    "aten.gelu": _gelu,
    **dict.fromkeys(REDUCTIONS, _reduce),
}
