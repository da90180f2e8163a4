"""What of a module is in the graph that is lowered."""

from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn

from quatrain.export.lowering.tracing import trace


class Scaled(nn.Module):
    def __init__(self, shared: nn.Module) -> None:
        super().__init__()
        self.shared = shared

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.shared.get_buffer("scale")


class TwoScaled(nn.Module):
    """Two parts that share a tensor, as the layers of a backbone share their masks."""

    config, tok_embeddings = SimpleNamespace(dim=4), None

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Module()
        shared.register_buffer("scale", torch.full((4,), 2.0))
        self.parts = nn.Sequential(Scaled(shared), Scaled(shared))

    def forward(self, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        return self.parts(x)


def test_what_parts_share_is_one_tensor() -> None:
    """ExecuTorch stores each further one outside of the delegate, where nothing reads it."""
    traced = trace(cast(Any, TwoScaled()), 8)
    assert len(traced.graph_signature.buffers) == 1
    x = torch.ones(1, 3, 4)
    assert torch.equal(traced.module()(x, torch.zeros(1, dtype=torch.long)), 4 * x)


class WithRowsUnread(TwoScaled):
    """A model that takes the rows of its positions, as one does whose layers rotate nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cos", torch.ones(16, 4))

    def forward(self, x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        self.get_buffer("cos")[: x.shape[1]].reshape(1, -1)
        return self.parts(x)


def test_a_table_whose_rows_nothing_uses_is_left_out() -> None:
    traced = trace(cast(Any, WithRowsUnread()), 8)
    assert len(traced.graph_signature.buffers) == 1
