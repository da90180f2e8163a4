"""Learned positions (GPT-2): an embedding of each position, in place of a rotary embedding."""

import torch
from torch import nn

from quatrain.backbone.config import BackboneConfig


class LearnedPositions(nn.Module):
    """`x + weight[start : start + T]`: x [B, T, dim], weight [max_seq_len, dim]."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        # Of an empty table: as the embedding's.
        table = torch.empty(config.max_seq_len, config.dim)
        self.weight = nn.Parameter(table, requires_grad=False)

    def forward(self, x: torch.Tensor, start: int) -> torch.Tensor:
        return x + self.weight.narrow(0, start, x.shape[1])
