"""Dequantizes a quantized matrix."""

import torch

from quatrain.checkpoint.files.lazy_tensors import MadeByRows, RowsOf, StoredTensor
from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear


def dequantized(linear: GroupedLinear) -> StoredTensor:
    """`linear` as float32 [N, K], computed where it is read."""

    def rows(some: slice) -> torch.Tensor:
        scales = linear.scales().float()
        return dequantized_rows(linear, scales, zeros_of(linear, scales))(some)

    return StoredTensor(linear.shape, torch.float32, MadeByRows(linear.shape, rows))


def zeros_of(linear: GroupedLinear, scales: torch.Tensor) -> torch.Tensor:
    """Its zero points, float32 [N, G]; of one without, 0."""
    return linear.zeros().float() if linear.zeros else torch.zeros_like(scales)


def dequantized_rows(linear: GroupedLinear, scales: torch.Tensor, zeros: torch.Tensor) -> RowsOf:
    """Rows of the float32 [N, K] that scales and zeros [N, G] make of the values."""
    columns = linear.shape[1]
    group_of = (
        linear.group_of()
        if linear.group_of
        else torch.arange(columns) // (columns // linear.groups)
    )
    values = linear.values()

    def rows_of(rows: slice) -> torch.Tensor:
        return (values[rows].float() - zeros[rows][:, group_of]) * scales[rows][:, group_of]

    return rows_of
