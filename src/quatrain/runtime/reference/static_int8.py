"""Operators whose activations are int8 by one scale and zero point that are fixed at export.

Layouts: `executorch/backends/vulkan/patterns/quantized_linear.py` and `quantized_convolution.py`.
Scales and biases of output channels may be longer than there are channels: padding.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from quatrain.linear.affine import INT8_MAX, INT8_MIN


def quantize_per_tensor(
    x: torch.Tensor, scale: float, zero_point: int, quant_min: int, quant_max: int
) -> torch.Tensor:
    """clamp(round(x / scale) + zero_point), ties to even."""
    return (torch.round(x.float() * (1.0 / scale)) + zero_point).clamp(quant_min, quant_max)


def dequantize_per_tensor(x: torch.Tensor, scale: float, zero_point: int) -> torch.Tensor:
    """(x - zero_point) * scale, of integers x of any shape."""
    return (x.float() - zero_point) * scale


def linear_of_int8(
    x: torch.Tensor, input_scale: float, input_zero_point: int, weights: torch.Tensor,
    weight_scales: torch.Tensor, bias: torch.Tensor | None,
) -> torch.Tensor:  # fmt: skip
    """int8 x [..., K] times int8 weights [N, K], a scale per channel in weight_scales [>= N], plus
    bias [>= N]: float32 [..., N]."""
    channels = weights.shape[0]
    weight = weights.float() * weight_scales[:channels, None].float()
    activation = dequantize_per_tensor(x, input_scale, input_zero_point)
    return F.linear(activation, weight, _bias_of_channels(bias, channels))


def linear_to_int8(
    x: torch.Tensor, input_scale: float, input_zero_point: int, weights: torch.Tensor,
    weight_scales: torch.Tensor, output_scale: float, output_zero_point: int,
    bias: torch.Tensor | None, activation: str,
) -> torch.Tensor:  # fmt: skip
    """`linear_of_int8`, its result in int8 again."""
    y = linear_of_int8(x, input_scale, input_zero_point, weights, weight_scales, bias)
    return _int8(y, output_scale, output_zero_point, activation)


def convolution(
    x: torch.Tensor, input_scale: float, input_zero_point: int, weights: torch.Tensor,
    weight_scales: torch.Tensor, output_scale: float, output_zero_point: int,
    bias: torch.Tensor | None, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
    groups: int, activation: str,
) -> torch.Tensor:  # fmt: skip
    """int8 x [B, I, H, W] convolved with weights [O, >= h * w * I / groups]."""
    activations = dequantize_per_tensor(x, input_scale, input_zero_point)
    kernel = _kernel(weights, weight_scales, kernel_size, x.shape[1] // groups)
    bias = _bias_of_channels(bias, len(kernel))
    y = F.conv2d(activations, kernel, bias, list(stride), list(padding), list(dilation), groups)
    return _int8(y, output_scale, output_zero_point, activation)


def depthwise_convolution(
    x: torch.Tensor, input_scale: float, input_zero_point: int, weights: torch.Tensor,
    weight_scales: torch.Tensor, output_scale: float, output_zero_point: int,
    bias: torch.Tensor | None, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
    groups: int, activation: str,
) -> torch.Tensor:  # fmt: skip
    """`convolution` with a channel per group, whose weights are [h, w, O]."""
    as_rows = weights.flatten(0, 1).t()
    return convolution(
        x, input_scale, input_zero_point, as_rows, weight_scales, output_scale, output_zero_point,
        bias, kernel_size, stride, padding, dilation, groups, activation,
    )  # fmt: skip


def transposed_convolution(
    x: torch.Tensor, input_scale: float, input_zero_point: int, weights: torch.Tensor,
    weight_scales: torch.Tensor, output_scale: float, output_zero_point: int,
    bias: torch.Tensor | None, kernel_size: Any, stride: Any, padding: Any, output_padding: Any,
    dilation: Any, groups: int, activation: str,
) -> torch.Tensor:  # fmt: skip
    """The transposed convolution of x [B, I, H, W] with weights [O, >= h * w * I / groups]."""
    activations = dequantize_per_tensor(x, input_scale, input_zero_point)
    kernel = _kernel(weights, weight_scales, kernel_size, x.shape[1] // groups)
    bias = _bias_of_channels(bias, len(kernel))
    # Torch has the input's channels first, and of the output's those of one group.
    of_groups = kernel.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)
    y = F.conv_transpose2d(
        activations, of_groups, bias, list(stride), list(padding), list(output_padding), groups,
        list(dilation),
    )  # fmt: skip
    return _int8(y, output_scale, output_zero_point, activation)


def _kernel(
    weights: torch.Tensor, scales: torch.Tensor, kernel_size: Any, channels: int
) -> torch.Tensor:
    """[O, channels, h, w] of rows that hold [h, w, channels] and padding."""
    h, w = kernel_size
    rows = weights[:, : h * w * channels].float() * scales[: len(weights), None].float()
    return rows.reshape(-1, h, w, channels).permute(0, 3, 1, 2)


def _bias_of_channels(bias: torch.Tensor | None, channels: int) -> torch.Tensor | None:
    return None if bias is None else bias[:channels].float()


def add(
    a: torch.Tensor, b: torch.Tensor, a_scale: float, a_zero_point: int, b_scale: float,
    b_zero_point: int, output_scale: float, output_zero_point: int, alpha: float,
) -> torch.Tensor:  # fmt: skip
    """a + alpha * b."""
    wide_b = dequantize_per_tensor(b, b_scale, b_zero_point)
    y = dequantize_per_tensor(a, a_scale, a_zero_point) + alpha * wide_b
    return _int8(y, output_scale, output_zero_point)


def relu(
    x: torch.Tensor, input_scale: float, input_zero_point: int, output_scale: float,
    output_zero_point: int,
) -> torch.Tensor:  # fmt: skip
    """x or zero, whichever is higher."""
    y = dequantize_per_tensor(x, input_scale, input_zero_point)
    return _int8(y, output_scale, output_zero_point, "relu")


def pixel_shuffle(
    x: torch.Tensor, input_scale: float, input_zero_point: int, output_inv_scale: float,
    output_zero_point: int, upscale_factor: int,
) -> torch.Tensor:  # fmt: skip
    """x [B, C * r * r, H, W] as [B, C, H * r, W * r], r being `upscale_factor`."""
    y = dequantize_per_tensor(x, input_scale, input_zero_point)
    return _int8(F.pixel_shuffle(y, upscale_factor), 1.0 / output_inv_scale, output_zero_point)


def _int8(y: torch.Tensor, scale: float, zero_point: int, activation: str = "none") -> torch.Tensor:
    if activation not in ("none", "relu"):
        raise ValueError(f"the activation {activation!r} is none of 'none' and 'relu'")
    y = y.relu() if activation == "relu" else y
    return quantize_per_tensor(y, scale, zero_point, INT8_MIN, INT8_MAX)


STATIC_INT8_KERNELS: dict[str, Callable[..., Any]] = {
    "quantized_decomposed.quantize_per_tensor": quantize_per_tensor,
    "quantized_decomposed.dequantize_per_tensor": dequantize_per_tensor,
    "et_vk.linear_q8ta_q8csw": linear_of_int8,
    "et_vk.q8ta_linear": linear_to_int8,
    "et_vk.q8ta_linear_gemv": linear_to_int8,
    "et_vk.q8ta_conv2d": convolution,
    "et_vk.q8ta_conv2d_pw": convolution,
    "et_vk.q8ta_conv2d_dw": depthwise_convolution,
    "et_vk.q8ta_conv2d_transposed": transposed_convolution,
    "et_vk.q8ta_add": add,
    "et_vk.q8ta_relu": relu,
    "et_vk.q8ta_pixel_shuffle": pixel_shuffle,
}
