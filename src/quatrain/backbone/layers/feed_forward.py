"""The gated feed-forward block (Shazeer, 2020), alone and as a mixture of experts."""

from collections.abc import Callable
from functools import partial
from statistics import NormalDist

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layers.norm import RMSNorm
from quatrain.backbone.layers.scaling import Factor


def silu(x: torch.Tensor) -> torch.Tensor:
    """`x * sigmoid(x)` in two steps, as programs compute it: F.silu rounds otherwise, and with
    dynamic int8 activations one changed rounding changes all that follows."""
    return x * torch.sigmoid(x)


def squared_relu(x: torch.Tensor) -> torch.Tensor:
    """`max(x, 0) ** 2` (So et al., 2021)."""
    positive = F.relu(x)
    return positive * positive


ACTIVATIONS = {
    "silu": silu,
    "relu": F.relu,
    "relu2": squared_relu,
    "gelu": F.gelu,
    "gelu_approx": partial(F.gelu, approximate="tanh"),
}


def activation(config: BackboneConfig) -> Callable[[torch.Tensor], torch.Tensor]:
    """The activation of the feed-forwards that `config.act_fn` names, elementwise."""
    return ACTIVATIONS[config.act_fn]


class XIELU(nn.Module):
    """`beta * x + alpha_p * x ** 2` above 0, `beta * x + alpha_n * (exp(x) - 1 - x)` below, with
    three learned numbers [1] (Huang and Schlag, 2024: "Deriving Activation Functions Using
    Integration").

    Source: `XIELUActivation` of transformers' `activations.py`, whose logarithms of slopes are
    applied here already.
    """

    def __init__(self) -> None:
        super().__init__()
        self.alpha_p = nn.Parameter(torch.ones(1), requires_grad=False)
        self.alpha_n = nn.Parameter(torch.ones(1), requires_grad=False)
        self.beta = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positive = F.relu(x)
        negative = x - positive
        # Programs have names for tensors, not for numbers: alpha_n is subtracted, in place of 1.
        below = self.alpha_n * (torch.exp(negative) - negative) - self.alpha_n
        return self.beta * x + self.alpha_p * (positive * positive) + below


class FeedForward(nn.Module):
    """`w2(act(w1(x)) * w3(x))`, or `w2(act(w1(x)))` without a gate: x [B, T, dim] through
    hidden_dim and back. With `sparsity` that part of w1(x) is cut to 0; with `use_sub_norms` w2
    reads a norm."""

    def __init__(
        self, config: BackboneConfig, hidden_dim: int, bias: bool, sparsity: float = 0.0
    ) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.dim, hidden_dim, bias=bias)
        self.w2 = nn.Linear(hidden_dim, config.dim, bias=bias)
        gated = config.feed_forward_gate
        self.w3 = nn.Linear(config.dim, hidden_dim, bias=bias) if gated else None
        self.activate = XIELU() if config.act_fn == "xielu" else activation(config)
        self.cut = GaussianTopK(sparsity) if sparsity else None
        self.sub_norm = RMSNorm(hidden_dim, config.norm_eps) if config.use_sub_norms else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self._hidden(x)
        return self.w2(hidden if self.sub_norm is None else self.sub_norm(hidden))

    def _hidden(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, hidden_dim]. Intermediate results are freed, which matters for many texts."""
        hidden = self.activate(self.w1(x) if self.cut is None else self.cut(self.w1(x)))
        return hidden if self.w3 is None else hidden * self.w3(x)


class GaussianTopK(nn.Module):
    """`max(x - mean - deviation * z, 0)` over the last dimension of x [..., hidden_dim]: z is what
    the part `sparsity` of a normal distribution lies below.

    Source: `_gaussian_topk` of transformers' `modeling_gemma3n.py`.
    """

    def __init__(self, sparsity: float) -> None:
        super().__init__()
        self.scale_deviation = Factor(NormalDist().inv_cdf(sparsity))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(-1, keepdim=True)
        deviation = torch.sqrt((centred * centred).mean(-1, keepdim=True))
        return F.relu(centred - self.scale_deviation(deviation))
