"""A token embedding stored as int8 or int4, per row or per group."""

import torch
from torch import nn

_ROWS_AT_ONCE = 4096


class QuantizedGroupEmbedding(nn.Module):
    """Looks up rows and scales them: `y = weight[tokens] * scales[tokens]` per group.

    Buffers: `weight` int8 [vocab_size, embedding_dim], values in [-128, 127] for bit width 8
    and in [-8, 7] for 4; `scales` [vocab_size, embedding_dim / group_size], or [vocab_size]
    where one group spans the row. tokens int64 [...]; returns [..., embedding_dim] in `dtype`.

    Raises ValueError if embedding_dim is not a multiple of group_size or the bit width is neither 4
    nor 8.
    """

    weight: torch.Tensor
    scales: torch.Tensor

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int,
        group_size: int | None = None,
        bit_width: int = 8,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        scales_precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        group_size = group_size or embedding_dim
        if embedding_dim % group_size:
            raise ValueError(
                f"embedding_dim {embedding_dim} is not a multiple of group_size {group_size}"
            )
        if bit_width not in (4, 8):
            raise ValueError(f"bit_width is {bit_width}, expected 4 or 8")
        self.vocab_size = vocab_size
        self.embedding_dim = embedding_dim
        self.group_size = group_size
        self.bit_width = bit_width
        self.dtype = dtype
        groups = embedding_dim // group_size
        scales_shape = (vocab_size, groups) if groups > 1 else (vocab_size,)
        weight = torch.zeros((vocab_size, embedding_dim), dtype=torch.int8, device=device)
        self.register_buffer("weight", weight)
        scales = torch.ones(scales_shape, dtype=scales_precision, device=device)
        self.register_buffer("scales", scales)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        # [..., groups, group_size] * [..., groups, 1]
        rows = self.weight[tokens].unflatten(-1, (-1, self.group_size))
        scales = self.scales[tokens].view(*rows.shape[:-1], 1)
        # In the scales' own precision first, as ExecuTorch's embedding_byte kernel does.
        return (rows.to(scales.dtype) * scales).flatten(-2).to(self.dtype)

    def dequantized_weight(self) -> torch.Tensor:
        """The whole table [vocab_size, embedding_dim] in `dtype`."""
        table = torch.empty((self.vocab_size, self.embedding_dim), dtype=self.dtype)
        for rows in torch.arange(self.vocab_size).split(_ROWS_AT_ONCE):
            table[rows] = self(rows)
        return table
