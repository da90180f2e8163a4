"""Layer normalization by the root mean square (Zhang and Sennrich, 2019), or by mean and variance
(Ba et al., 2016)."""

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.backbone.config import BackboneConfig
from quatrain.linear.affine import cast


def stream_norm(config: BackboneConfig) -> nn.Module:
    """A norm of the residual stream [..., dim], of the config's type."""
    if config.norm_type == "layer":
        return LayerNorm(config.dim, config.norm_eps, config.norm_bias)
    return RMSNorm(config.dim, config.norm_eps)


class RMSNorm(nn.Module):
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension, computed in float32.

    x [..., dim] of any floating dtype, which the result keeps; weight [dim], or without
    `affine` ones, which no checkpoint holds.
    """

    weight: torch.Tensor

    def __init__(self, dim: int, eps: float, affine: bool = True) -> None:
        super().__init__()
        self.eps = eps
        if affine:
            self.weight = nn.Parameter(torch.ones(dim), requires_grad=False)
        else:
            # On the CPU even if the module is built on the meta device: never loaded.
            self.register_buffer("weight", torch.ones(dim, device="cpu"), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = cast(x, torch.float32)
        normed = wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True) + self.eps)
        return cast(normed, x.dtype) * self.weight


class LayerNorm(nn.Module):
    """`(x - mean) / sqrt(variance + eps) * weight + bias` over the last dimension: x [..., dim],
    weight and bias [dim]; without `bias` zeros, which no checkpoint holds."""

    def __init__(self, dim: int, eps: float, bias: bool) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim), requires_grad=False)
        if bias:
            self.bias = nn.Parameter(torch.zeros(dim), requires_grad=False)
        else:
            # On the CPU even if the module is built on the meta device: never loaded.
            self.register_buffer("bias", torch.zeros(dim, device="cpu"), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class InputScaledNorm(nn.Module):
    """RMS norm of `weight * x`: x [..., dim], weight [dim] (`use_ffn_learnable_scales`).

    Source: `RMSNormWithInputScale` in ExecuTorch's `examples/models/llama/norm.py`.
    """

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim), requires_grad=False)
        self.norm = RMSNorm(dim, eps, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.weight * x)
