"""The activation that makes a rate of decay positive."""

import torch


def negative_softplus(x: torch.Tensor) -> torch.Tensor:
    """-softplus(x), which is log(1 - sigmoid(x)), by operators that all runtimes have."""
    pair = torch.stack((torch.zeros_like(x), x), dim=-1)
    return torch.log_softmax(pair, dim=-1)[..., 0]
