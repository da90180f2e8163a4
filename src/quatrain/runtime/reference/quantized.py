"""The quantized operators. Int4 weights are unpacked once, into dense float32 matrices.

Layout of the constants (`executorch/backends/vulkan/patterns/weight_packing_utils.py`):
packed weights uint8 [N, K/2], value + 8 of the even column in the low nibble and of the odd
one in the high nibble; scales [K/group, N].
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from quatrain.arithmetic import VULKAN_ARITHMETIC
from quatrain.errors import InputError
from quatrain.linear.affine import INT8_MAX, INT8_MIN, choose_row_qparams
from quatrain.runtime.calls.token_ids import check_token_ids


def unpack_int4(packed: torch.Tensor, even_low: bool = True) -> torch.Tensor:
    """packed uint8 [N, K/2] -> int8 [N, K] in [-8, 7]."""
    low, high = (packed & 15).to(torch.int8) - 8, (packed >> 4).to(torch.int8) - 8
    pair = (low, high) if even_low else (high, low)
    return torch.stack(pair, dim=-1).flatten(-2)


def dense_weight(packed: torch.Tensor, scales: torch.Tensor, group_size: int) -> torch.Tensor:
    """The float32 weight [N, K] of packed uint8 [N, K/2] with scales [K/group_size, N]."""
    weight = unpack_int4(packed).float().unflatten(-1, (-1, group_size))
    return (weight * scales.t().float()[..., None]).flatten(-2)


def linear_weight_only(x: torch.Tensor, dense: torch.Tensor, bias: Any) -> torch.Tensor:
    """x [..., K] times dense [N, K], plus bias [N] (or longer: padding)."""
    bias = None if bias is None else bias[: dense.shape[0]].float()
    return F.linear(x.float(), dense, bias)


def linear_in_half(x: torch.Tensor, dense: torch.Tensor, bias: Any) -> torch.Tensor:
    """As above, for x in float16, in which each product and each sum is rounded, one after the
    other from the first of K on. Equal to the phone's runtime bit for bit where that stores
    without rounding; see `quatrain.arithmetic`."""
    rows, weight = x.reshape(-1, x.shape[-1]).t().contiguous(), dense.t().half().contiguous()
    total = torch.zeros(rows.shape[1], weight.shape[1], dtype=torch.float16)
    product = torch.empty_like(total)
    for column, weights in zip(rows, weight, strict=True):
        total += torch.mul(column[:, None], weights, out=product)
    if bias is not None:
        total += bias[: weight.shape[1]].half()
    return total.unflatten(0, x.shape[:-1])


def linear_dynamic(
    x: torch.Tensor, scales: torch.Tensor, zero_points: torch.Tensor, dense: torch.Tensor,
    bias: Any, weight_scales: torch.Tensor, misread: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """As above, x [..., K] first rounded to int8 with one scale and zero point per row [...].

    `misread` [groups, N]: what the kernel reads as sums of groups of the weights, times each zero
    point, less what they are; `weight_scales` [groups, N].
    """
    result = linear_weight_only(fake_quantize(x, scales, zero_points), dense, bias)
    if misread is not None:
        shifts = zero_points.float() * scales.float()
        result -= shifts[..., None] * (misread * weight_scales.float()).sum(0)
    return result


def linear_dynamic_in_half(
    x: torch.Tensor, scales: torch.Tensor, zero_points: torch.Tensor, integers: torch.Tensor,
    weight_scales: torch.Tensor, bias: Any, misread: torch.Tensor | None = None,
) -> torch.Tensor:  # fmt: skip
    """As `linear_dynamic`, for a result in a buffer of float16, from int8 `integers` [N, groups, G]
    and `weight_scales` [groups, N]. Each group's exact sum, the product of both scales and
    the sum over groups are rounded to float16. Source:
    `linear_fp_output_tile_int8_int4_compute.glslh` of ExecuTorch 1.0 to 1.5.
    """
    rows, (count, groups, width) = x.reshape(-1, x.shape[-1]), integers.shape
    scale, zero = scales.reshape(-1, 1).float(), zero_points.reshape(-1, 1).float()
    shifted = (quantized_rows(rows, scale, zero) - zero).unflatten(-1, (groups, width))
    total = torch.zeros(len(rows), count, dtype=torch.float16)
    for group in range(groups):
        sums = shifted[:, group] @ integers[:, group].float().t()
        if misread is not None:
            sums -= zero * misread[group]
        total.addcmul_(sums.half(), (scale * weight_scales[group].float()).half())
    total = total if bias is None else total + bias[:count].half()
    return total.unflatten(0, x.shape[:-1])


def quantized_rows(x: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor) -> torch.Tensor:
    """x in int8, as floating-point integers."""
    return torch.clamp(torch.round(x.float() * (1.0 / scale)) + zero, -128, 127)


def fake_quantize(x: torch.Tensor, scales: torch.Tensor, zero_points: torch.Tensor) -> torch.Tensor:
    """torchao's quantize_affine then dequantize_affine to int8, step for step."""
    scale, zero = scales.float()[..., None], zero_points.float()[..., None]
    return (quantized_rows(x, scale, zero) - zero) * scale


def choose_qparams_affine(
    x: torch.Tensor, mapping_type: str, block_size: Any, quant_min: Any, quant_max: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and zero point per row of x [..., K], each [...], asymmetric.

    Always as in Vulkan's shader: `choose_row_qparams`. Without a `quant_min` its runtime uses the
    range of int8, whatever `quant_max` is (`ChooseQParams.cpp`).
    """
    least, most = (INT8_MIN, INT8_MAX) if quant_min is None else (quant_min, quant_max)
    if not INT8_MIN <= least < most <= INT8_MAX:
        raise InputError(f"quantizes to [{least}, {most}], expected a part of [-128, 127]")
    sizes = [1] * (len(block_size) - 1)
    if mapping_type != "ASYMMETRIC" or list(block_size[:-1]) != sizes:
        raise InputError(
            f"quantizes {mapping_type} over blocks of {list(block_size)}, expected ASYMMETRIC over "
            "whole rows"
        )
    return choose_row_qparams(x.float(), VULKAN_ARITHMETIC.smallest_scale, least, most)


def embedding_q4gsw(
    weights: torch.Tensor,
    weight_scales: torch.Tensor,
    group_size: int,
    indices: torch.Tensor,
    is_linear_weight: bool = False,
) -> torch.Tensor:
    """Rows [..., D] at indices [...] of the int4 table weights [V, D/2], weight_scales
    [V, D/group].

    `is_linear_weight`: packed as a linear's weight (shared with the output layer).
    """
    check_token_ids(
        indices, weight_scales.shape[0]
    )  # weights shared with a linear may have more rows
    rows = indices.long()
    table = unpack_int4(weights[rows], even_low=is_linear_weight).float()
    groups = (weight_scales.shape[1], group_size)
    return (table.unflatten(-1, groups) * weight_scales[rows].float()[..., None]).flatten(-2)


def weight_int8pack_mm(x: torch.Tensor, weights: torch.Tensor, weight_scales: torch.Tensor) -> Any:
    """x [M, K] times weights int8 [N, K], each output channel times its scale [N]."""
    return F.linear(x.float(), weights.float()) * weight_scales.float()


def linear_qcs4w(x: torch.Tensor, weights: torch.Tensor, weight_scales: torch.Tensor) -> Any:
    """x [..., K] times int4 weights [N, K/2] (the even k in the high nibble), each output channel
    times its scale [>= N]."""
    dense = unpack_int4(weights, even_low=False).float()
    return F.linear(x.float(), dense) * weight_scales[: len(dense)].float()


def dequantize_affine(
    x: torch.Tensor, block_size: Any, scale: torch.Tensor, zero_point: torch.Tensor | None
) -> torch.Tensor:
    """(x - zero_point) * scale, over blocks of `block_size`."""
    sizes = [s // b for s, b in zip(x.shape, block_size, strict=True)]

    def spread(values: torch.Tensor) -> torch.Tensor:
        values = values.float().reshape(sizes)
        for dim, block in enumerate(block_size):
            values = values.repeat_interleave(block, dim)
        return values

    shifted = x.float() if zero_point is None else x.float() - spread(zero_point)
    return shifted * spread(scale)


QUANTIZED_KERNELS: dict[str, Callable[..., Any]] = {
    "torchao.choose_qparams_affine": choose_qparams_affine,
    "torchao.dequantize_affine": dequantize_affine,
    "et_vk.embedding_q4gsw": embedding_q4gsw,
    "et_vk.linear_qcs4w": linear_qcs4w,
    "aten._weight_int8pack_mm": weight_int8pack_mm,
    "et_vk.linear_qcs8w": weight_int8pack_mm,
}
