"""The output linear with int8 per-channel weights and dynamic int8 activations ("8da8w")."""

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.linear.affine import INT8_MAX, INT8_MIN, cast, fake_quantize_tokens
from quatrain.linear.private_operators import quantized_decomposed


class Int8DynActInt8WeightLinear(nn.Module):
    """`y = int8(x) @ (weight * scales).T`, without bias.

    Buffers: `weight` int8 [out_features, in_features]; `scales` and `zeros` [out_features]
    float32. x [..., in_features] is cast to `precision`, the dtype of y.
    """

    weight: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        device: torch.device | None = None,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.in_features = in_features
        self.out_features = out_features
        self.precision = precision
        weight = torch.zeros((out_features, in_features), dtype=torch.int8, device=device)
        self.register_buffer("weight", weight)
        for name in ("scales", "zeros"):
            self.register_buffer(name, torch.zeros(out_features, device=device))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        input = cast(input, self.precision)
        # torchao's per-token default: the smallest normal number of the activation's dtype.
        activation = fake_quantize_tokens(input, eps=torch.finfo(input.dtype).smallest_normal)
        return F.linear(activation, self.dequantized_weight())

    def dequantized_weight(self) -> torch.Tensor:
        """The floating-point weight [out_features, in_features] in `precision`."""
        return quantized_decomposed.dequantize_per_channel.default(
            self.weight,
            self.scales,
            self.zeros,
            0,
            INT8_MIN,
            INT8_MAX,
            torch.int8,
            out_dtype=self.precision,
        )
