"""Handlers, as in handlers.py, of element-wise operators and of reductions."""

import math
from collections.abc import Callable
from itertools import zip_longest

from quatrain.errors import InputError
from quatrain.runtime.wgpu.dispatches.dispatch import Dispatch, Operand
from quatrain.runtime.wgpu.dispatches.pointwise import (
    BINARY,
    DIVISIONS,
    EXACT_GELU,
    REDUCTIONS,
    SCALED,
    UNARY,
    WHERE,
    elementwise,
    filled,
    reduction,
)
from quatrain.runtime.wgpu.lowering import Lowering

# WGSL by the type that a tensor is converted to.
_CONVERSIONS = {
    **dict.fromkeys(("float32", "float16", "int32", "int64"), "a"),
    "bool": "a != C(0)",
}
_POWERS = {2: "a * a", 3: "a * a * a", 0.5: "sqrt(a)", -0.5: "inverseSqrt(a)"}


def _elementwise(to: Lowering, expression: str, *values: int) -> list[Dispatch]:
    """The values, tensors or fixed numbers, are a, b and c of `expression`."""
    inputs = [to.operand(i) if to.has_tensor(i) else to.plain(i) for i in values]
    shape = _broadcast([x for x in inputs if isinstance(x, Operand)])
    return [elementwise(expression, to.output(shape), *inputs)]


def _broadcast(inputs: list[Operand]) -> tuple[int, ...]:
    """The shape that all inputs broadcast to: along each dimension the size that is not 1."""
    columns = zip_longest(*(reversed(x.shape) for x in inputs), fillvalue=1)
    sizes = [next((size for size in column if size != 1), 1) for column in columns]
    return tuple(reversed(sizes))


def _unary(to: Lowering, x: int) -> list[Dispatch]:
    return _elementwise(to, UNARY[to.operator.kind], x)


def _binary(to: Lowering, a: int, b: int) -> list[Dispatch]:
    return _elementwise(to, BINARY[to.operator.kind], a, b)


def _bitwise_not(to: Lowering, x: int) -> list[Dispatch]:
    truth = to.graph.tensor(x).dtype == "bool"
    return _elementwise(to, "a == C(0)" if truth else "~a", x)


def _sum_or_difference(to: Lowering, a: int, b: int, alpha: int) -> list[Dispatch]:
    if to.plain(alpha) == 1:
        return _binary(to, a, b)
    return _elementwise(to, SCALED[to.operator.kind], a, b, alpha)


def _divide(to: Lowering, a: int, b: int, rounding_mode: int | None = None) -> list[Dispatch]:
    mode = None if rounding_mode is None else to.plain(rounding_mode)
    return _elementwise(to, BINARY[DIVISIONS[mode]], a, b)


def _power(to: Lowering, x: int, exponent: int) -> list[Dispatch]:
    known = None if to.has_tensor(exponent) else _POWERS.get(to.plain(exponent))
    if known:
        return _elementwise(to, known, x)
    return _elementwise(to, BINARY["aten.pow"], x, exponent)


def _leaky_relu(to: Lowering, x: int, negative_slope: int) -> list[Dispatch]:
    return _elementwise(to, BINARY[to.operator.kind], x, negative_slope)


def _hardshrink(to: Lowering, x: int, lambd: int) -> list[Dispatch]:
    return _elementwise(to, BINARY[to.operator.kind], x, lambd)


def _clamp(to: Lowering, x: int, low: int, high: int) -> list[Dispatch]:
    bounds = [("higher", low), ("lower", high)]
    given = [(name, i) for name, i in bounds if to.has_tensor(i) or to.plain(i) is not None]
    expression = "a"
    for letter, (name, _) in zip("bc", given, strict=False):
        expression = f"{name}({expression}, {letter})"
    return _elementwise(to, expression, x, *(i for _, i in given))


def _where(to: Lowering, condition: int, a: int, b: int) -> list[Dispatch]:
    return _elementwise(to, WHERE, condition, a, b)


def _silu_mul(to: Lowering) -> list[Dispatch]:
    """See `fuse.fuse`."""
    return _elementwise(to, BINARY["silu_mul"], *to.operator.args[:-1])


def _gelu(to: Lowering, x: int, approximate: int) -> list[Dispatch]:
    exact = to.plain(approximate) == "none"
    return _elementwise(to, EXACT_GELU if exact else UNARY[to.operator.kind], x)


def _converted(to: Lowering, x: int) -> list[Dispatch]:
    """x in the type that the graph declares for the output."""
    source, target = to.graph.tensor(x).dtype, to.graph.tensor(to.operator.out).dtype
    whole = to.operand(x)
    if source == target:
        return to.alias(whole, whole.shape) or []
    if source == "uint8" or target not in _CONVERSIONS:
        raise InputError(f"{to.operator.name} of {source} to {target}: use --device reference")
    return _elementwise(to, _CONVERSIONS[target], x)


def _quantize(
    to: Lowering, x: int, scale: int, zero_point: int, quant_min: int, quant_max: int
) -> list[Dispatch]:
    low, high = float(to.plain(quant_min)), float(to.plain(quant_max))
    whole = to.operand(x)
    y = to.output(whole.shape)
    expression = f"clamp(round(a * b) + c, {low}, {high})"
    return [elementwise(expression, y, whole, 1.0 / to.plain(scale), to.plain(zero_point))]


def _dequantize(to: Lowering, x: int, scale: int, zero_point: int) -> list[Dispatch]:
    return _elementwise(to, "(a - c) * b", x, scale, zero_point)


def _filled(to: Lowering, shape: tuple[int, ...], value: float) -> list:
    return [filled(to.output(shape), value)]


def _full(to: Lowering, size: int, fill_value: int) -> list[Dispatch]:
    return _filled(to, to.sizes(size), to.plain(fill_value))


def _full_like(to: Lowering, x: int, fill_value: int) -> list[Dispatch]:
    return _filled(to, to.operand(x).shape, to.plain(fill_value))


def _ones_or_zeros(to: Lowering, size: int) -> list[Dispatch]:
    return _filled(to, to.sizes(size), to.operator.kind == "aten.ones")


def _ones_or_zeros_like(to: Lowering, x: int) -> list[Dispatch]:
    return _filled(to, to.operand(x).shape, to.operator.kind == "aten.ones_like")


def _scalar_tensor(to: Lowering, value: int) -> list[Dispatch]:
    return _filled(to, (), to.plain(value))


def _arange(to: Lowering, start: int, end: int, step: int) -> list[Dispatch]:
    first, by = to.plain(start), to.plain(step)
    count = math.ceil((to.plain(end) - first) / by)
    return [elementwise("a + b * C(i)", to.output((count,)), first, by)]


def _reduce(to: Lowering, x: int, dims: int, keepdim: int) -> list[Dispatch]:
    whole, over = to.operand(x), to.plain(dims)
    rank, keep = len(whole.shape), to.plain(keepdim)
    if over is None or over == () or over == []:
        over = range(rank)
    reduced = sorted({dim % rank for dim in ([over] if isinstance(over, int) else over)})
    sizes = [1 if dim in reduced else size for dim, size in enumerate(whole.shape)]
    shape = tuple(size for dim, size in enumerate(sizes) if keep or dim not in reduced)
    return [reduction(to.operator.kind, whole, reduced, to.output(shape))]


_COMPARISONS = ("aten.ge", "aten.gt", "aten.le", "aten.lt", "aten.eq", "aten.ne")
_LOGIC = ("aten.logical_and", "aten.logical_or", "aten.bitwise_and", "aten.bitwise_or")
POINTWISE_HANDLERS: dict[str, Callable[..., list[Dispatch]]] = {
    **dict.fromkeys(UNARY, _unary),
    **dict.fromkeys(("aten.mul", "aten.minimum", *_LOGIC, *_COMPARISONS), _binary),
    **dict.fromkeys(("aten.add", "aten.sub"), _sum_or_difference),
    "aten.bitwise_not": _bitwise_not,
    "aten.div": _divide,
    "aten.pow": _power,
    "aten.leaky_relu": _leaky_relu,
    "aten.hardshrink": _hardshrink,
    **dict.fromkeys(("aten.clamp", "aten.hardtanh"), _clamp),
    "aten.where": _where,
    "silu_mul": _silu_mul,
    "aten.gelu": _gelu,
    **dict.fromkeys(("aten._to_copy", "dim_order_ops._to_dim_order_copy"), _converted),
    "quantized_decomposed.quantize_per_tensor": _quantize,
    "quantized_decomposed.dequantize_per_tensor": _dequantize,
    "aten.full": _full,
    "aten.full_like": _full_like,
    **dict.fromkeys(("aten.ones", "aten.zeros"), _ones_or_zeros),
    **dict.fromkeys(("aten.ones_like", "aten.zeros_like"), _ones_or_zeros_like),
    "aten.scalar_tensor": _scalar_tensor,
    "aten.arange": _arange,
    **dict.fromkeys(REDUCTIONS, _reduce),
}
