"""One function per operator of a Vulkan graph: its operands, its output's shape, its kernel.

Element-wise operators and those that change shapes are in shape_operators.py."""

from collections.abc import Callable
from dataclasses import replace

from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.program import Operator
from quatrain.program.linear_kernels import INT4_LINEARS
from quatrain.runtime.defects import EmulatedDefect
from quatrain.runtime.wgpu import attention, linear, pointwise
from quatrain.runtime.wgpu.dispatch import Dispatch, Operand
from quatrain.runtime.wgpu.lowering import Lowering
from quatrain.runtime.wgpu.movement import put
from quatrain.runtime.wgpu.rows import Norm, Quantized, Row, quantize_activation
from quatrain.runtime.wgpu.shape_operators import SHAPE_HANDLERS


def _embedding(to: Lowering, operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    tokens, table = to.operand(args["indices"]), to.operand(args["weights"])
    y = to.declare(operator.out, (*tokens.shape, table.shape[1]))
    misread = to.defect == EmulatedDefect.HEIGHT_PACKED_EMBEDDING and (
        to.graph.tensor(operator.out).layout == "height_packed"
    )
    return [pointwise.embedding(tokens, table, y, misread)]


def _embedding_int4(to: Lowering, operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    tokens, table = to.operand(args["indices"]), to.operand(args["weights"])
    y = to.declare(operator.out, (*tokens.shape, table.shape[1] * 2))
    group, even_low = to.plain(args["group_size"]), to.plain(args["is_linear_weight"])
    scales = to.operand(args["weight_scales"])
    return [pointwise.embedding_int4(tokens, table, scales, y, group, even_low)]


def _rms_norm(to: Lowering, operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    x, weight = to.operand(args["x"]), to.operand(args["weight"])
    y = to.declare(operator.out, x.shape)
    return [to.add_row(Row(x, norm=Norm(weight, to.plain(args["eps"]), y)))]


def _rope(to: Lowering, operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    q, k = to.operand(args["xq"]), to.operand(args["xk"])
    q_id, k_id = to.graph.outputs_of(operator)
    q_out, k_out = to.declare(q_id, q.shape), to.declare(k_id, k.shape)
    tables = to.operand(args["freqs_cos"]), to.operand(args["freqs_sin"])
    if operator.kind == "et_vk.apply_rotary_emb":
        return [attention.rope(q, k, *tables, q_out, k_out)]
    table = to.bounded(args["start_pos"], q.shape[1], tables[0].shape[0])
    return [attention.rope(q, k, *tables, q_out, k_out, table, halves=True)]


def _rope_update(to: Lowering, operator: Operator) -> list[Dispatch]:
    """See `fuse.fuse`; a Hugging Face rotary embedding has the position among its arguments."""
    *rotary, v_id, k_cache_id, v_cache_id, start_id, q_id = operator.args
    q, k, cosines, sines = (to.operand(value_id) for value_id in rotary[:4])
    v, k_cache, v_cache = to.operand(v_id), to.cache(k_cache_id), to.cache(v_cache_id)
    q_out = to.declare(q_id, q.shape)
    caches = attention.Caches(v, v_cache, to.bounded(start_id, q.shape[1], k_cache.shape[1]))
    halves = len(rotary) > 4
    table = to.bounded(rotary[4], q.shape[1], cosines.shape[0]) if halves else 0
    return [attention.rope(q, k, cosines, sines, q_out, k_cache, table, halves, caches)]


def _attention(to: Lowering, operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    if to.plain(args["attn_mask"]) is not None or not to.plain(args["is_causal"]):
        raise InputError(f"{operator.name} with a mask of its own: use --device reference")
    q = to.operand(args["q"])
    updates = "k_cache" in args  # else k and v are the caches
    names = ("k_cache", "v_cache") if updates else ("k", "v")
    k_cache, v_cache = (to.cache(args[name]) for name in names)
    y = to.declare(operator.out, q.shape)
    parts = Operand(("parts", operator.out), "f32", attention.parts_shape(q, k_cache, to.traits))
    start = to.bounded(args["start_pos"], q.shape[1], k_cache.shape[1])
    scale = to.plain(args["scale"])
    made = []
    if updates:
        k, v = to.operand(args["k"]), to.operand(args["v"])
        made = [attention.cache_update(k, v, k_cache, v_cache, start)]
    return made + attention.attention(q, k_cache, v_cache, y, parts, start, to.traits, scale)


def _update_cache(to: Lowering, operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    value, cache = to.operand(args["value"]), to.cache(args["cache"])
    start = to.bounded(args["start_pos"], value.shape[1], cache.shape[1])
    return [put(value, 1, start, cache)]


def _choose_qparams(to: Lowering, operator: Operator) -> list[Dispatch]:
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
    if not to.arithmetic.quantizes(x.rows):
        return []  # nothing reads them
    scale_id, zero_id = to.graph.outputs_of(operator)
    known = to.quantized.get(x.key)
    if known is not None:
        to.result.operands[scale_id], to.result.operands[zero_id] = known.scale, known.zero
        return []
    scale = to.declare(scale_id, x.shape[:-1])
    zero = replace(to.declare(zero_id, x.shape[:-1]), dtype="i32")
    to.result.operands[zero_id] = zero
    packed = Operand(("packed", operator.out), "u32", (x.rows, -(-k // 8) * 2))
    quantized = Quantized(packed, scale, zero)
    to.quantized[x.key] = quantized
    return [to.add_row(Row(x, quantized=quantized))]


def _linear(to: Lowering, operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    x, packed = to.operand(args["x"]), to.operand(args["weights"])
    int8 = INT4_LINEARS[operator.kind] == Scheme.DYNAMIC_INT8
    has_bias = to.has_tensor(args["bias"])
    weights = linear.Weights(
        packed=packed,
        scales=to.operand(args["weight_scales"]),
        group=to.plain(args["group_size"]),
        sums=to.operand(args["weight_sums"]) if int8 else None,
        bias=to.operand(args["bias"]) if has_bias else None,
    )
    y = to.declare(operator.out, (*x.shape[:-1], packed.shape[0]))
    if not int8 or not to.arithmetic.quantizes(x.rows):
        return [linear.int4_linear(x, weights, y, to.traits)]
    scale, zero = to.operand(args["input_scales"]), to.operand(args["input_zero_points"])
    quantized = to.quantized.get(x.key)
    made = []
    if quantized is None or (quantized.scale.key, quantized.zero.key) != (scale.key, zero.key):
        shape = (x.rows, -(-x.shape[-1] // 8) * 2)
        quantized = Quantized(Operand(("packed", operator.out), "u32", shape), scale, zero)
        made = [quantize_activation(x, quantized)]
    return [*made, linear.int4_linear(x, weights, y, to.traits, quantized, to.defect)]


def _float_linear(to: Lowering, operator: Operator) -> list[Dispatch]:
    args = operator.named_args
    x, weight = to.operand(args["x"]), to.operand(args["weights"])
    has_bias = to.has_tensor(args["bias"])
    bias = to.operand(args["bias"]) if has_bias else None
    y = to.declare(operator.out, (*x.shape[:-1], weight.shape[0]))
    return [linear.float_linear(x, weight, bias, y)]


HANDLERS: dict[str, Callable[[Lowering, Operator], list[Dispatch] | None]] = {
    "aten.embedding": _embedding,
    "et_vk.embedding_q4gsw": _embedding_int4,
    "et_vk.rms_norm": _rms_norm,
    "et_vk.apply_rotary_emb": _rope,
    "et_vk.apply_rotary_emb_hf": _rope,
    "rope_update": _rope_update,
    "sdpa_with_kv_cache": _attention,
    "custom_sdpa": _attention,
    "update_cache": _update_cache,
    "torchao.choose_qparams_affine": _choose_qparams,
    **dict.fromkeys(INT4_LINEARS, _linear),
    "aten.linear": _float_linear,
    **SHAPE_HANDLERS,
}
