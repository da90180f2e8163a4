"""Affine quantization through torchao's operators, called directly.

torchao's Python helpers are wrapped in `torch.no_grad`; each leaves `set_grad_enabled` nodes
that torch.export then inlines one by one, recompiling the whole graph each time, which makes
tracing quadratic in depth. The operators below them trace to the same nodes without that.
"""

import torch

from quatrain.int4 import INT4_MAX, INT4_MIN
from quatrain.linear.private_operators import torchao_operators

INT8_MIN, INT8_MAX = -128, 127


def cast(activation: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`activation` in `dtype`; traces to no node where it has that dtype already."""
    return activation if activation.dtype == dtype else activation.to(dtype)


def dequantize_groups(
    weight: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor,
    group_size: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """`(weight - zeros) * scales` per group of `group_size` neighbours in a row.

    weight int8 [N, K] holding int4 values, scales and zeros [N, K / group_size];
    returns [N, K] in `dtype`.
    """
    return torchao_operators().dequantize_affine.default(
        weight,
        [1, group_size],
        scales,
        zeros,
        torch.int8,
        INT4_MIN,
        INT4_MAX,
        output_dtype=dtype,
    )


def dequantize_untraced(
    weight: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor,
    group_size: int,
    dtype: torch.dtype,
) -> torch.Tensor:
    """What `dequantize_groups` gives, bit for bit, in a third of the time and without torchao,
    whose import takes a second; for what is not traced."""
    dequantized = weight.to(dtype)  # [N, K], computed in place
    groups = dequantized.view(len(weight), -1, group_size)
    if zeros.any():
        groups.sub_(zeros[..., None].to(dtype))
    groups.mul_(scales[..., None])
    return dequantized


def choose_token_qparams(
    activation: torch.Tensor, eps: float, zero_point_dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale and zero point of asymmetric int8, one pair per token.

    activation [..., T, K]; returns float32 scale and zero point (an integer in [-128, 127], in
    `zero_point_dtype`), each [..., T]. The scale is at least `eps`.
    """
    return torchao_operators().choose_qparams_affine.default(
        activation,
        "ASYMMETRIC",
        _token_blocks(activation),
        torch.int8,
        INT8_MIN,
        INT8_MAX,
        eps,
        torch.float32,
        zero_point_dtype,
    )


def fake_quantize_tokens(activation: torch.Tensor, eps: float) -> torch.Tensor:
    """`activation` [..., T, K] rounded to its per-token int8 grid and back, dtype kept."""
    block = _token_blocks(activation)
    scale, zero_point = choose_token_qparams(activation, eps)
    quantized = torchao_operators().quantize_affine.default(
        activation, block, scale, zero_point, torch.int8, INT8_MIN, INT8_MAX
    )
    return torchao_operators().dequantize_affine.default(
        quantized,
        block,
        scale,
        zero_point,
        torch.int8,
        INT8_MIN,
        INT8_MAX,
        output_dtype=activation.dtype,
    )


def choose_row_qparams(
    rows: torch.Tensor, smallest_scale: float, least: int = INT8_MIN, most: int = INT8_MAX
) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale and zero point of asymmetric int8 per row, as in Vulkan's choose_qparams.

    rows float32 [..., K], to be rounded to integers from `least` to `most`; returns float32 scale
    and float32 (integer-valued, in [least, most]) zero point, each [...]. A scale below
    `smallest_scale` becomes that, but the zero point stays the row's own. Source:
    `ops/glsl/choose_qparams_per_row.glsl` of ExecuTorch's Vulkan runtime.
    """
    lowest, highest = rows.amin(-1).clamp(max=0), rows.amax(-1).clamp(min=0)
    scale = (highest - lowest) / float(most - least)
    scale = torch.where(scale > 0, scale, 0.1)
    # Of the range's two ends the farther one, measured in scales, gives the zero point.
    low, high = lowest / scale, highest / scale
    from_lowest = abs(least) + low < abs(most) - high
    zero_point = torch.where(from_lowest, least - low, most - high)
    return scale.clamp(min=smallest_scale), zero_point.round().clamp(least, most)


def fake_quantize_rows(activation: torch.Tensor, smallest_scale: float) -> torch.Tensor:
    """`activation` [..., K] rounded to its per-row int8 grid and back as Vulkan does it."""
    scale, zero_point = (
        values[..., None] for values in choose_row_qparams(activation, smallest_scale)
    )
    quantized = (activation * (1.0 / scale)).round_().add_(zero_point)  # in place: less time
    return quantized.clamp_(INT8_MIN, INT8_MAX).sub_(zero_point).mul_(scale)


def _token_blocks(activation: torch.Tensor) -> list[int]:
    """torchao's block size for "one block per token": 1 but in the last dimension."""
    return [1] * (activation.dim() - 1) + [activation.shape[-1]]
