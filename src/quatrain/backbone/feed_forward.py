"""The gated feed-forward block (Shazeer, 2020), alone and as a mixture of experts."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.backbone.config import BackboneConfig


def silu(x: torch.Tensor) -> torch.Tensor:
    """`x * sigmoid(x)` in two steps, as programs compute it: F.silu rounds otherwise, and with
    dynamic int8 activations one changed rounding changes all that follows."""
    return x * torch.sigmoid(x)


def squared_relu(x: torch.Tensor) -> torch.Tensor:
    """`max(x, 0) ** 2` (So et al., 2021)."""
    positive = F.relu(x)
    return positive * positive


_ACTIVATIONS = {
    "silu": silu,
    "relu2": squared_relu,
    "gelu": F.gelu,
    "gelu_approx": partial(F.gelu, approximate="tanh"),
}


class FeedForward(nn.Module):
    """`w2(act(w1(x)) * w3(x))`, or `w2(act(w1(x)))` without a gate: x [1, T, dim] through
    hidden_dim and back. `hidden_dim`: of an expert, which has no bias."""

    def __init__(self, config: BackboneConfig, hidden_dim: int | None = None) -> None:
        super().__init__()
        bias = config.feed_forward_bias and hidden_dim is None
        hidden_dim = hidden_dim or config.hidden_dim
        self.w1 = nn.Linear(config.dim, hidden_dim, bias=bias)
        self.w2 = nn.Linear(hidden_dim, config.dim, bias=bias)
        gated = config.feed_forward_gate
        self.w3 = nn.Linear(config.dim, hidden_dim, bias=bias) if gated else None
        self.activate = _ACTIVATIONS[config.act_fn]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.activate(self.w1(x))
        return self.w2(hidden if self.w3 is None else hidden * self.w3(x))
