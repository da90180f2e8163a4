"""Activations as XNNPACK computes them."""

import math
from collections.abc import Callable

import torch
from torch import nn

from quatrain.backbone.layers.feed_forward import ACTIVATIONS, silu, squared_relu


class Silu(nn.Module):
    """`silu` as a module."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return silu(x)


class SquaredRelu(nn.Module):
    """`squared_relu` as a module."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return squared_relu(x)


class SigmoidGelu(nn.Module):
    """GELU by its approximation with tanh (Hendrycks and Gimpel, 2016), where XNNPACK has the exact
    one: `x * sigmoid(x * (a + b * x * x))` is the same, as (1 + tanh(y)) / 2 is sigmoid(2 * y)."""

    a: torch.Tensor
    b: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        twice = 2.0 * (2.0 / math.pi) ** 0.5
        for name, value in (("a", twice), ("b", 0.044715 * twice)):
            tensor = torch.tensor([value], dtype=torch.float32, device="cpu")
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x * (self.a + x * x * self.b))


# Of the activations of feed-forwards that have one.
PARTS: dict[Callable[[torch.Tensor], torch.Tensor], type[nn.Module]] = {
    silu: Silu, squared_relu: SquaredRelu, ACTIVATIONS["gelu_approx"]: SigmoidGelu,
    ACTIVATIONS["relu"]: nn.ReLU,
}  # fmt: skip
