"""Root mean square layer normalization (Zhang and Sennrich, 2019)."""

import torch
from torch import nn


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
            # On the CPU even where the module is built on the meta device: never loaded.
            self.register_buffer("weight", torch.ones(dim, device="cpu"), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float() if x.dtype != torch.float32 else x
        normed = wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True) + self.eps)
        return (normed if x.dtype == torch.float32 else normed.to(x.dtype)) * self.weight


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
