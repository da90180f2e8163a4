"""How a layer's branch joins the residual stream, where that is not a plain sum."""

import torch
from torch import nn

_TEMPERATURE = 0.3
_SMALLEST = 1e-3


class GatedResidual(nn.Module):
    """`alpha * stream + beta * branch` by channel, alpha and beta from one learned `gate` [dim].

    beta = sigmoid(gate / 0.3) and alpha = sqrt(1 - beta^2), so that the norm of the stream is
    kept where the branch is orthogonal to it. stream and branch [B, T, dim]. Source:
    `NormPreservingResidualConnection` in ExecuTorch's `llama_transformer.py`.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(dim), requires_grad=False)

    def weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """alpha and beta, each [dim]."""
        logits = self.gate.float() / _TEMPERATURE
        beta = torch.sigmoid(logits)
        # 1 - beta = sigmoid(-logits), without the cancellation.
        alpha_squared = torch.sigmoid(-logits) * (1.0 + beta)
        return torch.sqrt(alpha_squared.clamp(min=_SMALLEST)), beta

    def forward(self, stream: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        alpha, beta = self.weights()
        return alpha * stream + beta * branch


class FixedResidual(nn.Module):
    """A `GatedResidual` whose two weights [dim] are constants, as a program stores it."""

    alpha: torch.Tensor
    beta: torch.Tensor

    def __init__(self, gated: GatedResidual) -> None:
        super().__init__()
        alpha, beta = gated.weights()
        self.register_buffer("alpha", alpha)
        self.register_buffer("beta", beta)

    def forward(self, stream: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        return self.alpha * stream + self.beta * branch
