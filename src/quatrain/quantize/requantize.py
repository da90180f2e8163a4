"""Requantizes quantized weights that the layout cannot hold."""

from dataclasses import dataclass, field

import torch

from quatrain.checkpoint.files.lazy_tensors import RowsOf
from quatrain.int4 import XNNPACK_GROUP_SIZES
from quatrain.quantize.methods.round_to_nearest import quantize_rows
from quatrain.quantize.quantized_tensor import RoundingError


@dataclass
class Requantization:
    """Rounds linears for `open_checkpoint` and notes what that changes.

    `asymmetric`, `group_sizes`: as in `RoundAgain`. `errors`: by linear, against the weights as the
    source's own integers, zero points and scales have them.
    """

    asymmetric: bool = True
    group_sizes: tuple[int, ...] = XNNPACK_GROUP_SIZES
    errors: dict[str, RoundingError] = field(default_factory=dict)

    def __call__(
        self, name: str, rows_of: RowsOf, shape: tuple[int, ...], group_size: int | None, why: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`quantize_rows`, its error noted under `name`."""
        rounded = quantize_rows(rows_of, shape, group_size)
        if rounded.error:
            self.errors[name] = rounded.error._replace(why=why)
        values, scales = rounded.tensors
        return values, scales
