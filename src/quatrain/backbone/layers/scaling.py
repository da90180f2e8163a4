"""Multiplication by a number that params.json states."""

import torch
from torch import nn


class Factor(nn.Module):
    """`x * factor`. The number is a tensor [1], so that the exporter knows it by its name as it
    does every other constant of a layer."""

    factor: torch.Tensor

    def __init__(self, factor: float) -> None:
        super().__init__()
        # On the CPU even if the module is built on the meta device: never loaded.
        value = torch.tensor([factor], dtype=torch.float32, device="cpu")
        self.register_buffer("factor", value, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


class SoftCap(nn.Module):
    """`cap * tanh(x / cap)`: x kept between -cap and cap."""

    def __init__(self, cap: float) -> None:
        super().__init__()
        self.down, self.up = Factor(1.0 / cap), Factor(cap)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.up(torch.tanh(self.down(x)))


def factor_or_none(factor: float) -> Factor | None:
    """A `Factor`, or None if it would change nothing."""
    return None if factor == 1.0 else Factor(factor)
