"""Operators on int8 activations, as torch computes them on what the integers stand for."""

import torch
import torch.ao.quantization.fx._decomposed
import torch.nn.functional as F

from quatrain.runtime.reference import static_int8
from quatrain.runtime.reference.quantized import linear_qcs4w

IN, OUT = (0.031, -7), (0.05, 4)  # scales and zero points
SEED = torch.Generator().manual_seed(0)


def int8(*shape: int) -> torch.Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8, generator=SEED)


def wide(x: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
    return torch.ops.quantized_decomposed.dequantize_per_tensor(
        x, scale, zero, -128, 127, torch.int8
    )


def narrow(x: torch.Tensor, scale: float, zero: int) -> torch.Tensor:
    return torch.ops.quantized_decomposed.quantize_per_tensor(x, scale, zero, -128, 127, torch.int8)


def padded(x: torch.Tensor, to: int = 4) -> torch.Tensor:
    return F.pad(x, (0, -x.shape[-1] % to))


def test_quantize_and_back() -> None:
    x = torch.arange(-40, 40) * 0.0155  # halves among them, and what is clamped
    got = static_int8.quantize_per_tensor(x, *IN, -12, 12)
    want = torch.ops.quantized_decomposed.quantize_per_tensor(x, *IN, -12, 12, torch.int8)
    assert got.to(torch.int8).equal(want)
    assert static_int8.dequantize_per_tensor(want, *IN).equal(wide(want, *IN))


def test_linears() -> None:
    x, weight, bias = int8(3, 8), int8(5, 8), torch.randn(5, generator=SEED)
    scales = torch.rand(5, generator=SEED) * 0.01
    want = F.linear(wide(x, *IN), weight * scales[:, None], bias)
    got = static_int8.linear_of_int8(x, *IN, weight, padded(scales), padded(bias))
    torch.testing.assert_close(got, want)
    got = static_int8.linear_to_int8(x, *IN, weight, padded(scales), *OUT, padded(bias), "relu")
    assert got.to(torch.int8).equal(narrow(want.relu(), *OUT))


def test_linear_of_int4_channels() -> None:
    integers = torch.randint(-8, 8, (5, 6), generator=SEED)
    packed = ((integers[:, ::2] + 8) << 4 | (integers[:, 1::2] + 8)).to(torch.uint8)
    scales, x = torch.rand(5, generator=SEED), torch.randn(2, 6, generator=SEED)
    want = F.linear(x, integers * scales[:, None])
    torch.testing.assert_close(linear_qcs4w(x, packed, padded(scales)), want)


def test_convolutions() -> None:
    x, weight, bias = int8(2, 6, 7, 9), int8(4, 3, 3, 2), torch.randn(4, generator=SEED)
    scales = torch.rand(4, generator=SEED) * 0.01
    dense = weight * scales[:, None, None, None]
    packed = padded(weight.permute(0, 2, 3, 1).reshape(4, -1))
    shape = ([3, 2], [2, 1], [1, 0], [1, 2])
    got = static_int8.convolution(
        x, *IN, packed, padded(scales), *OUT, padded(bias), *shape, 2, "none"
    )
    want = F.conv2d(wide(x, *IN), dense, bias, *shape[1:], groups=2)
    assert got.to(torch.int8).equal(narrow(want, *OUT))

    # [I, O / groups, h, w] as torch has them; a row per channel of the output in the graph.
    turned = dense.unflatten(0, (2, -1)).transpose(1, 2).flatten(0, 1)
    got = static_int8.transposed_convolution(
        x, *IN, packed, padded(scales), *OUT, None, *shape[:3], [1, 0], shape[3], 2, "relu"
    )
    want = F.conv_transpose2d(wide(x, *IN), turned, None, [2, 1], [1, 0], [1, 0], 2, [1, 2])
    assert got.to(torch.int8).equal(narrow(want.relu(), *OUT))


def test_depthwise_convolution() -> None:
    x, weight = int8(1, 4, 5, 5), int8(4, 1, 3, 2)
    scales = torch.rand(4, generator=SEED) * 0.01
    packed = weight.permute(2, 3, 1, 0).reshape(3, 2, 4)
    shape = ([1, 1], [0, 1], [1, 1])
    got = static_int8.depthwise_convolution(
        x, *IN, packed, scales, *OUT, None, [3, 2], *shape, 4, "none"
    )
    want = F.conv2d(wide(x, *IN), weight * scales[:, None, None, None], None, *shape, groups=4)
    assert got.to(torch.int8).equal(narrow(want, *OUT))


def test_the_rest() -> None:
    a, b = int8(1, 8, 2, 3), int8(1, 8, 2, 3)
    got = static_int8.add(a, b, *IN, *OUT, 0.08, 3, 2.0)
    assert got.to(torch.int8).equal(narrow(wide(a, *IN) + 2.0 * wide(b, *OUT), 0.08, 3))
    got = static_int8.relu(a, *IN, *OUT)
    assert got.to(torch.int8).equal(narrow(wide(a, *IN).relu(), *OUT))
    got = static_int8.pixel_shuffle(a, *IN, 20.0, 4, 2)
    assert got.to(torch.int8).equal(narrow(F.pixel_shuffle(wide(a, *IN), 2), *OUT))
