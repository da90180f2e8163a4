"""Handlers, as in handlers.py, of matrix products, convolutions, softmax and layer norms."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from quatrain.errors import InputError
from quatrain.runtime.wgpu.dispatches import linear
from quatrain.runtime.wgpu.dispatches.dispatch import Dispatch, Operand
from quatrain.runtime.wgpu.dispatches.pointwise import elementwise
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
from quatrain.runtime.wgpu.lowering import Lowering


def _product(to: Lowering, a: int, b: int) -> list[Dispatch]:
    left, right = to.operand(a), to.operand(b)
    y = to.output((*left.shape[:-1], right.shape[-1]))
    return [product(left, right, y, half=to.in_half)]


def _addmm(to: Lowering, bias: int, a: int, b: int, beta: int, alpha: int) -> list[Dispatch]:
    left, right = to.operand(a), to.operand(b)
    y = to.output((left.shape[0], right.shape[1]))
    added, half = Addend(to.operand(bias), to.plain(beta)), to.in_half
    return [product(left, right, y, to.plain(alpha), added, half=half)]


def _int8_linear(to: Lowering, x: int, weights: int, weight_scales: int) -> list[Dispatch]:
    rows, weight, scales = (to.operand(i) for i in (x, weights, weight_scales))
    y = to.output((*rows.shape[:-1], weight.shape[0]))
    sums = Operand(("sums", to.operator.out), "f32", y.shape)
    return [product(rows, weight, sums, b_transposed=True), elementwise("a * b", y, sums, scales)]


def _int4_channel_linear(to: Lowering, x: int, weights: int, weight_scales: int) -> list[Dispatch]:
    rows, packed = to.operand(x), to.operand(weights)
    y = to.output((*rows.shape[:-1], packed.shape[0]))
    return [linear.int4_channel_linear(rows, packed, to.operand(weight_scales), y)]


def _softmax(to: Lowering, x: int, dim: int) -> list[Dispatch]:
    whole = to.operand(x)
    y = to.output(whole.shape)
    along = to.axis(dim, whole)
    log, half = to.operator.kind == "aten._log_softmax", to.in_half
    return [softmax(whole, along, y, log, half and not log)]


def _layer_norm(
    to: Lowering, x: int, normalized_shape: int, weight: int, bias: int, eps: int
) -> list[Dispatch]:
    whole, count = to.operand(x), len(to.plain(normalized_shape))
    y_id, mean_id, factor_id = to.outputs
    kept = (*whole.shape[: len(whole.shape) - count], *(1,) * count)
    out = LayerNorm(
        to.declare(y_id, whole.shape), to.declare(mean_id, kept), to.declare(factor_id, kept)
    )
    weights, biases = (to.operand(i) if to.has_tensor(i) else None for i in (weight, bias))
    half = to.in_half
    return [layer_norm(whole, weights, biases, to.plain(eps), out, half)]


def _sdpa(to: Lowering, q: int, k: int, v: int, attn_mask: int, scale: int) -> list[Dispatch]:
    """q, k, v [..., T, D], with an additive mask if there is one."""
    queries, keys, values = (to.operand(i) for i in (q, k, v))
    y = to.output((*queries.shape[:-1], values.shape[-1]))
    shape = (*queries.shape[:-1], keys.shape[-2])
    scores = Operand(("scores", to.operator.out), "f32", shape)
    weights = Operand(("weights", to.operator.out), "f32", shape)
    given = to.plain(scale)
    factor = 1 / math.sqrt(queries.shape[-1]) if given is None else given
    mask = Addend(to.operand(attn_mask)) if to.has_tensor(attn_mask) else None
    return [
        product(queries, keys, scores, factor, mask, b_transposed=True),
        softmax(scores, len(shape) - 1, weights),
        product(weights, values, y),
    ]


def _rope_interleaved(to: Lowering, x: int, freqs_cis: int) -> list[Dispatch]:
    whole, angles = to.operand(x), to.operand(freqs_cis)
    if angles.count != int(np.prod(whole.shape[1:])):
        raise InputError(
            f"{to.operator.name} of {list(whole.shape)} by angles of {list(angles.shape)}, "
            "expected as many as an element of the batch has"
        )
    return [rotate_pairs(whole, angles, to.output(whole.shape))]


def _convolution(
    to: Lowering, x: int, weights: int, bias: int, stride: int, padding: int, dilation: int,
    transposed: int, output_padding: int, groups: int, output_min: int | None = None,
    output_max: int | None = None,
) -> list[Dispatch]:  # fmt: skip
    image, kernel = to.operand(x), to.operand(weights)
    rank = len(image.shape) - 2
    if rank not in (1, 2) or len(kernel.shape) != rank + 2:
        raise InputError(
            f"{to.operator.name} of {list(image.shape)} with {list(kernel.shape)}: the GPU kernel "
            "takes [B, I, L] and [B, I, H, W]. Use --device reference"
        )
    steps, around, apart, more = (
        _each(to.plain(i), rank) for i in (stride, padding, dilation, output_padding)
    )
    window = Window(steps, around, apart, to.number(groups), to.plain(transposed))
    channels = kernel.shape[1] * window.groups if window.transposed else kernel.shape[0]
    sizes = window.sizes(image.shape[2:], kernel.shape[2:], more)
    y = to.output((image.shape[0], channels, *sizes))
    added = to.operand(bias) if to.has_tensor(bias) else None
    clamp = (_bound(to, output_min, -math.inf), _bound(to, output_max, math.inf))
    return [convolution(image, kernel, added, window, y, clamp)]


def _each(values: Sequence[int], rank: int) -> tuple[int, ...]:
    """One per dimension of the image; a single one applies to all."""
    return tuple(values) * rank if len(values) == 1 else tuple(values)


def _bound(to: Lowering, value_id: int | None, absent: float) -> float:
    value = None if value_id is None else to.plain(value_id)
    return absent if value is None else float(value)


SUM_HANDLERS: dict[str, Callable[..., list[Dispatch]]] = {
    "aten.mm": _product,
    "aten.bmm": _product,
    "aten.addmm": _addmm,
    **dict.fromkeys(("aten._weight_int8pack_mm", "et_vk.linear_qcs8w"), _int8_linear),
    "et_vk.linear_qcs4w": _int4_channel_linear,
    **dict.fromkeys(("aten._softmax", "aten._log_softmax"), _softmax),
    "aten.native_layer_norm": _layer_norm,
    "et_vk.sdpa": _sdpa,
    "et_vk.apply_rotary_emb_interleaved": _rope_interleaved,
    **dict.fromkeys(("aten.convolution", "et_vk.conv_with_clamp"), _convolution),
}
