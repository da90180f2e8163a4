"""One function per operator of a Vulkan graph: its operands, its output's shape, its kernel.

Those that any model may hold are in pointwise.py, selection.py, shapes.py and sums.py."""

from collections.abc import Callable
from dataclasses import replace

from quatrain.errors import InputError
from quatrain.multiples import up_to
from quatrain.program.vulkan.linear_kernels import DYNAMIC_LINEAR, WEIGHT_ONLY_LINEAR
from quatrain.runtime.defects import EmulatedDefect, is_misreadable_embedding
from quatrain.runtime.wgpu.dispatches import attention, linear, pointwise
from quatrain.runtime.wgpu.dispatches.dispatch import Dispatch, Operand
from quatrain.runtime.wgpu.dispatches.movement import put
from quatrain.runtime.wgpu.dispatches.rows import Norm, Quantized, Row, quantize_activation
from quatrain.runtime.wgpu.lowering import Lowering
from quatrain.runtime.wgpu.operators.pointwise import POINTWISE_HANDLERS
from quatrain.runtime.wgpu.operators.selection import SELECTION_HANDLERS
from quatrain.runtime.wgpu.operators.shapes import SHAPE_HANDLERS
from quatrain.runtime.wgpu.operators.sums import SUM_HANDLERS


def _embedding(to: Lowering, weights: int, indices: int) -> list[Dispatch]:
    tokens, table = to.operand(indices), to.operand(weights)
    y = to.output((*tokens.shape, table.shape[1]))
    misread = to.defect == EmulatedDefect.HEIGHT_PACKED_EMBEDDING and is_misreadable_embedding(
        to.graph, to.operator
    )
    return [pointwise.embedding(tokens, table, y, misread)]


def _embedding_int4(
    to: Lowering, weights: int, weight_scales: int, group_size: int, indices: int,
    is_linear_weight: int | None = None,
) -> list[Dispatch]:  # fmt: skip
    tokens, table = to.operand(indices), to.operand(weights)
    y = to.output((*tokens.shape, table.shape[1] * 2))
    even_low = is_linear_weight is not None and to.plain(is_linear_weight)
    group, scales = to.plain(group_size), to.operand(weight_scales)
    return [pointwise.embedding_int4(tokens, table, scales, y, group, even_low)]


def _rms_norm(to: Lowering, x: int, weight: int, eps: int) -> list[Dispatch]:
    rows = to.operand(x)
    y = to.output(rows.shape)
    return [to.add_row(Row(rows, norm=Norm(to.operand(weight), to.plain(eps), y)))]


def _rope(
    to: Lowering, xq: int, xk: int, freqs_cos: int, freqs_sin: int, start_pos: int | None = None
) -> list[Dispatch]:
    q, k = to.operand(xq), to.operand(xk)
    q_id, k_id = to.outputs
    q_out, k_out = to.declare(q_id, q.shape), to.declare(k_id, k.shape)
    tables = to.operand(freqs_cos), to.operand(freqs_sin)
    if start_pos is None:
        return [attention.rope(q, k, *tables, q_out, k_out)]
    table = to.bounded(start_pos, q.shape[1], tables[0].shape[0])
    return [attention.rope(q, k, *tables, q_out, k_out, table, halves=True)]


def _rope_update(to: Lowering) -> list[Dispatch]:
    """See `fuse.fuse`; a Hugging Face rotary embedding has the position among its arguments."""
    *rotary, v_id, k_cache_id, v_cache_id, start_id, q_id = to.operator.args
    q, k, cosines, sines = (to.operand(value_id) for value_id in rotary[:4])
    v, k_cache, v_cache = to.operand(v_id), to.cache(k_cache_id), to.cache(v_cache_id)
    q_out = to.declare(q_id, q.shape)
    caches = attention.Caches(v, v_cache, to.bounded(start_id, q.shape[1], k_cache.shape[1]))
    halves = len(rotary) > 4
    table = to.bounded(rotary[4], q.shape[1], cosines.shape[0]) if halves else 0
    return [attention.rope(q, k, cosines, sines, q_out, k_cache, table, halves, caches)]


def _attention(
    to: Lowering, q: int, k: int, v: int, start_pos: int, is_causal: int, scale: int
) -> list[Dispatch]:
    """k and v are the caches."""
    if to.plain(is_causal) is False:
        raise InputError(f"{to.operator.name} that is not causal: use --device reference")
    queries, k_cache, v_cache = to.operand(q), to.cache(k), to.cache(v)
    y = to.output(queries.shape)
    shape = attention.parts_shape(queries, k_cache, to.traits)
    parts = Operand(("parts", to.operator.out), "f32", shape)
    start = to.bounded(start_pos, queries.shape[1], k_cache.shape[1])
    if queries.shape[1] > 1 and y.dtype == "f16" and to.in_half:
        return [attention.attention_in_half(queries, k_cache, v_cache, y, start, to.plain(scale))]
    return attention.attention(
        queries, k_cache, v_cache, y, parts, start, to.traits, to.plain(scale)
    )


def _cached_attention(
    to: Lowering, q: int, k: int, v: int, k_cache: int, v_cache: int, start_pos: int,
    is_causal: int, scale: int,
) -> list[Dispatch]:  # fmt: skip
    attended = _attention(to, q, k_cache, v_cache, start_pos, is_causal, scale)
    caches = to.operand(k_cache), to.operand(v_cache)
    start = to.bounded(start_pos, to.operand(q).shape[1], caches[0].shape[1])
    update = attention.cache_update(to.operand(k), to.operand(v), *caches, start)
    return [update, *attended]


def _update_cache(to: Lowering, value: int, cache: int, start_pos: int) -> list[Dispatch]:
    new, kept = to.operand(value), to.cache(cache)
    along = len(kept.shape) - 3  # [..., context, KV, D]
    start = to.bounded(start_pos, new.shape[along], kept.shape[along])
    return [put(new, along, start, kept)]


def _choose_qparams(
    to: Lowering, x: int, mapping_type: int, block_size: int, quant_min: int, quant_max: int
) -> list[Dispatch]:
    """Once per activation: the exporter asks again for each linear that reads it."""
    rows = to.operand(x)
    _require_int8_per_token(
        to, rows, [to.plain(i) for i in (mapping_type, quant_min, quant_max, block_size)]
    )
    if not to.arithmetic.quantizes(rows.rows):
        return []  # nothing reads them
    scale_id, zero_id = to.outputs
    known = to.quantized.get(rows.key)
    if known is not None:
        to.result.operands[scale_id], to.result.operands[zero_id] = known.scale, known.zero
        return []
    scale = to.declare(scale_id, rows.shape[:-1])
    zero = replace(to.declare(zero_id, rows.shape[:-1]), dtype="i32")
    to.result.operands[zero_id] = zero
    packed = Operand(("packed", to.operator.out), "u32", (rows.rows, up_to(rows.shape[-1], 8) // 4))
    quantized = Quantized(packed, scale, zero)
    to.quantized[rows.key] = quantized
    return [to.add_row(Row(rows, quantized=quantized))]


def _require_int8_per_token(to: Lowering, x: Operand, asked: list) -> None:
    k = x.shape[-1]
    wanted = ("ASYMMETRIC", -128, 127, (1,) * (len(x.shape) - 1) + (k,))
    found = (*asked[:-1], tuple(asked[-1]))
    if found != wanted:
        raise InputError(
            f"{to.operator.name} asks for {found}; the GPU kernel knows asymmetric int8 per token, "
            f"{wanted}. Use --device reference."
        )


def _weight_only_linear(
    to: Lowering, x: int, weights: int, weight_scales: int, group_size: int, bias: int,
    weight_sums: int | None = None,
) -> list[Dispatch]:  # fmt: skip
    int4 = _int4_weights(to, weights, weight_scales, group_size, bias, weight_sums)
    rows = to.operand(x)
    y = to.output((*rows.shape[:-1], int4.packed.shape[0]))
    several = to.operator.kind == WEIGHT_ONLY_LINEAR and not to.operator.row_by_row
    half = to.arithmetic.half_sums and several
    return [linear.int4_linear(rows, int4, y, to.traits, half_sums=half)]


def _dynamic_linear(
    to: Lowering, x: int, input_scales: int, input_zero_points: int, weights: int, weight_sums: int,
    weight_scales: int, group_size: int, bias: int,
) -> list[Dispatch]:  # fmt: skip
    rows = to.operand(x)
    if not to.arithmetic.quantizes(rows.rows):
        return _weight_only_linear(to, x, weights, weight_scales, group_size, bias, weight_sums)
    int4 = _int4_weights(to, weights, weight_scales, group_size, bias, weight_sums)
    y = to.output((*rows.shape[:-1], int4.packed.shape[0]))
    scale, zero = to.operand(input_scales), to.operand(input_zero_points)
    quantized = to.quantized.get(rows.key)
    made = []
    if quantized is None or (quantized.scale.key, quantized.zero.key) != (scale.key, zero.key):
        shape = (rows.rows, up_to(rows.shape[-1], 8) // 4)
        quantized = Quantized(Operand(("packed", to.operator.out), "u32", shape), scale, zero)
        made = [quantize_activation(rows, quantized)]
    half = to.in_half
    made.append(linear.int4_linear(rows, int4, y, to.traits, quantized, to.defect, half=half))
    return made


def _int4_weights(
    to: Lowering, packed: int, scales: int, group: int, bias: int, sums: int | None
) -> linear.Weights:
    return linear.Weights(
        packed=to.operand(packed),
        scales=to.operand(scales),
        group=to.plain(group),
        sums=None if sums is None else to.operand(sums),
        bias=to.operand(bias) if to.has_tensor(bias) else None,
    )


def _float_linear(to: Lowering, x: int, weights: int, bias: int) -> list[Dispatch]:
    rows, weight = to.operand(x), to.operand(weights)
    added = to.operand(bias) if to.has_tensor(bias) else None
    y = to.output((*rows.shape[:-1], weight.shape[0]))
    return [linear.float_linear(rows, weight, added, y, to.in_half)]


# A handler's parameters after the first are the arguments that it takes, as value ids.
HANDLERS: dict[str, Callable[..., list[Dispatch] | None]] = {
    "aten.embedding": _embedding,
    "et_vk.embedding_q4gsw": _embedding_int4,
    "et_vk.rms_norm": _rms_norm,
    "et_vk.apply_rotary_emb": _rope,
    "et_vk.apply_rotary_emb_hf": _rope,
    "rope_update": _rope_update,
    "sdpa_with_kv_cache": _cached_attention,
    "custom_sdpa": _attention,
    "update_cache": _update_cache,
    "torchao.choose_qparams_affine": _choose_qparams,
    WEIGHT_ONLY_LINEAR: _weight_only_linear,
    DYNAMIC_LINEAR: _dynamic_linear,
    "aten.linear": _float_linear,
    **POINTWISE_HANDLERS,
    **SELECTION_HANDLERS,
    **SHAPE_HANDLERS,
    **SUM_HANDLERS,
}
