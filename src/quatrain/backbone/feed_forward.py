"""The SwiGLU feed-forward block (Shazeer, 2020)."""

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.backbone.config import BackboneConfig


class FeedForward(nn.Module):
    """`w2(silu(w1(x)) * w3(x))`: x [1, T, dim] through hidden_dim and back."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, config.hidden_dim, bias=False)
        self.w2 = nn.Linear(config.hidden_dim, config.dim, bias=False)
        self.w3 = nn.Linear(config.dim, config.hidden_dim, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))
