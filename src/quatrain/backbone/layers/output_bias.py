"""The bias of an output layer, by itself: that layer may be int4, int8 or an embedding's table."""

import torch
from torch import nn


class OutputBias(nn.Module):
    """`logits + bias`: logits [..., rows of the output], bias [rows of the output]."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(rows), requires_grad=False)

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits + self.bias
