"""One function per operator of a Vulkan graph: its operands, its output's shape, its kernel."""

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from quatrain.errors import InputError
from quatrain.program import Operator, Plain, ValueList
from quatrain.runtime.wgpu import attention, linear, pointwise
from quatrain.runtime.wgpu.dispatch import Dispatch, Operand

if TYPE_CHECKING:
    from quatrain.runtime.wgpu.lower import Lowering


def _embedding(to: "Lowering", operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    tokens, table = to.operand(args["indices"]), to.operand(args["weights"])
    y = to.declare(operator.out, (*tokens.shape, table.shape[1]))
    return [pointwise.embedding(tokens, table, y)]


def _embedding_int4(to: "Lowering", operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    tokens, table = to.operand(args["indices"]), to.operand(args["weights"])
    y = to.declare(operator.out, (*tokens.shape, table.shape[1] * 2))
    group, even_low = to.plain(args["group_size"]), to.plain(args["is_linear_weight"])
    scales = to.operand(args["weight_scales"])
    return [pointwise.embedding_int4(tokens, table, scales, y, group, even_low)]


def _rms_norm(to: "Lowering", operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    x, weight = to.operand(args["x"]), to.operand(args["weight"])
    y = to.declare(operator.out, x.shape)
    return [pointwise.rms_norm(x, weight, to.plain(args["eps"]), y, to.traits)]


def _rope(to: "Lowering", operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    q, k = to.operand(args["xq"]), to.operand(args["xk"])
    q_id, k_id = to.graph.outputs_of(operator)
    q_out, k_out = to.declare(q_id, q.shape), to.declare(k_id, k.shape)
    tables = to.operand(args["freqs_cos"]), to.operand(args["freqs_sin"])
    if operator.kind == "et_vk.apply_rotary_emb":
        return [attention.rope(q, k, *tables, q_out, k_out)]
    start = to.bounded(args["start_pos"], q.shape[1], tables[0].shape[0])
    return [attention.rope(q, k, *tables, q_out, k_out, start=start, halves=True)]


def _attention(to: "Lowering", operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    if to.plain(args["attn_mask"]) is not None or not to.plain(args["is_causal"]):
        raise InputError(f"{operator.name} with a mask of its own: use --device reference")
    q, k, v = (to.operand(args[name]) for name in ("q", "k", "v"))
    k_cache, v_cache = to.cache(args["k_cache"]), to.cache(args["v_cache"])
    y = to.declare(operator.out, q.shape)
    parts = Operand(("parts", operator.out), "f32", attention.parts_shape(q, k_cache))
    start = to.bounded(args["start_pos"], q.shape[1], k_cache.shape[1])
    scale = to.plain(args["scale"])
    return [
        attention.cache_update(k, v, k_cache, v_cache, start),
        *attention.attention(q, k_cache, v_cache, y, parts, start, to.traits, scale),
    ]


def _choose_qparams(to: "Lowering", operator: Operator) -> list[Dispatch]:
    """Once per activation: the exporter asks again for each linear that reads it."""
    args = operator.named_args
    x = to.operand(args["x"])
    k = x.shape[-1]
    wanted = ("ASYMMETRIC", -128, 127, (1,) * (len(x.shape) - 1) + (k,))
    found = tuple(to.plain(args[name]) for name in ("mapping_type", "quant_min", "quant_max"))
    found = (*found, tuple(to.plain(args["block_size"])))
    if found != wanted:
        raise InputError(
            f"{operator.name} asks for {found}; the GPU kernel knows asymmetric int8 per token, "
            f"{wanted}. Use --device reference."
        )
    scale_id, zero_id = to.graph.outputs_of(operator)
    known = to.quantized.get(x.key)
    if known is not None:
        to.result.operands[scale_id], to.result.operands[zero_id] = known.scale, known.zero
        return []
    scale = to.declare(scale_id, x.shape[:-1])
    zero = replace(to.declare(zero_id, x.shape[:-1]), dtype="i32")
    to.result.operands[zero_id] = zero
    packed = Operand(("packed", operator.out), "u32", (x.rows, -(-k // 8) * 2))
    to.quantized[x.key] = linear.Quantized(packed, scale, zero)
    eps = to.plain(args["eps"])
    return [linear.choose_qparams(x, to.quantized[x.key], to.traits, eps, to.fault)]


def _linear(to: "Lowering", operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    x, packed = to.operand(args["x"]), to.operand(args["weights"])
    int8 = operator.kind == "et_vk.linear_dq8ca_q4gsw"
    has_bias = not isinstance(to.graph.values[args["bias"]], Plain)
    weights = linear.Weights(
        packed=packed,
        scales=to.operand(args["weight_scales"]),
        group=to.plain(args["group_size"]),
        sums=to.operand(args["weight_sums"]) if int8 else None,
        bias=to.operand(args["bias"]) if has_bias else None,
    )
    y = to.declare(operator.out, (*x.shape[:-1], packed.shape[0]))
    if not int8:
        return [linear.int4_linear(x, weights, y, to.traits)]
    scale, zero = to.operand(args["input_scales"]), to.operand(args["input_zero_points"])
    quantized = to.quantized.get(x.key)
    made = []
    if quantized is None or (quantized.scale.key, quantized.zero.key) != (scale.key, zero.key):
        shape = (x.rows, -(-x.shape[-1] // 8) * 2)
        quantized = linear.Quantized(Operand(("packed", operator.out), "u32", shape), scale, zero)
        made = [linear.quantize_activation(x, quantized)]
    return [*made, linear.int4_linear(x, weights, y, to.traits, quantized, to.fault)]


def _unary(to: "Lowering", operator: Operator) -> list[Dispatch]:
    x = to.operand(operator.args[0])
    y = to.declare(operator.out, x.shape)
    return [pointwise.elementwise(pointwise.UNARY[operator.kind], x, None, y)]


def _binary(to: "Lowering", operator: Operator) -> list[Dispatch]:
    expression = pointwise.BINARY[operator.kind]
    args = operator.named_args
    a, b = (to.operand(args.get(name, operator.args[i])) for i, name in enumerate("ab"))
    if "alpha" in args and to.plain(args["alpha"]) != 1:
        expression = expression.replace("b", f"{float(to.plain(args['alpha']))} * b")
    if b.count > a.count and operator.kind in ("aten.add", "aten.mul"):
        a, b = b, a
    trailing = a.shape[len(a.shape) - len(b.shape) :]
    repeats = next((i for i, size in enumerate(b.shape) if size != 1), len(b.shape))
    if len(b.shape) > len(a.shape) or b.shape[repeats:] != trailing[repeats:]:
        raise InputError(
            f"{operator.name} of {list(a.shape)} and {list(b.shape)}: the GPU kernel repeats its "
            "second operand along leading dimensions only. Use --device reference."
        )
    y = to.declare(operator.out, a.shape)
    return [pointwise.elementwise(expression, a, b, y)]


def _slice(to: "Lowering", operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    x, step = to.operand(args["x"]), to.number(args["step"])
    dim = to.number(args["dim"]) % len(x.shape)

    def end_of(name: str) -> int | None:
        absent = isinstance(to.graph.values[args[name]], Plain) and to.plain(args[name]) is None
        return None if absent else to.number(args[name])

    begin, end, _ = slice(end_of("start"), end_of("end")).indices(x.shape[dim])
    length = len(range(begin, end, step))
    y = to.declare(operator.out, (*x.shape[:dim], length, *x.shape[dim + 1 :]))
    start = begin
    if not isinstance(to.graph.values[args["start"]], Plain):
        start = to.bounded(args["start"], length * step, x.shape[dim])
    return [pointwise.take(x, dim, start, step, y)]


def _select(to: "Lowering", operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    x = to.operand(args["x"])
    dim = to.number(args["dim"]) % len(x.shape)
    index = to.number(args["index"]) % x.shape[dim]
    y = to.declare(operator.out, (*x.shape[:dim], *x.shape[dim + 1 :]))
    if y.count == x.count:
        return to.alias(operator, x, y.shape) or []
    return [pointwise.take(x, dim, index, 1, y)]


def _view(to: "Lowering", operator: Operator) -> None:
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


def _same(to: "Lowering", operator: Operator) -> None:
    x = to.operand(operator.args[0])
    to.alias(operator, x, x.shape)


def _reshaped(to: "Lowering", operator: Operator) -> None:
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


HANDLERS: dict[str, Callable[["Lowering", Operator], list[Dispatch] | None]] = {
    "aten.embedding": _embedding,
    "et_vk.embedding_q4gsw": _embedding_int4,
    "et_vk.rms_norm": _rms_norm,
    "et_vk.apply_rotary_emb": _rope,
    "et_vk.apply_rotary_emb_hf": _rope,
    "sdpa_with_kv_cache": _attention,
    "torchao.choose_qparams_affine": _choose_qparams,
    "et_vk.linear_q4gsw": _linear,
    "et_vk.linear_dq8ca_q4gsw": _linear,
    "aten.slice_copy": _slice,
    "aten.select_copy": _select,
    "aten.view_copy": _view,
    "aten.clone": _same,
    "dim_order_ops._clone_dim_order": _same,
    "et_vk.prepack": _same,
    "aten.unsqueeze_copy": _reshaped,
    "aten.squeeze_copy": _reshaped,
    **dict.fromkeys(pointwise.UNARY, _unary),
    **dict.fromkeys(pointwise.BINARY, _binary),
}
