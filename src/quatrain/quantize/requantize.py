"""Weights that are quantized already, rounded anew where the layout cannot hold them."""

from dataclasses import dataclass, field
from math import sqrt

import torch

from quatrain.checkpoint.grouped import RowsOf
from quatrain.quantize.groups import quantize_channels, quantize_groups, squared_error

_ELEMENTS_AT_ONCE = 1 << 22


@dataclass
class Requantization:
    """Rounds weights to symmetric int4 groups and keeps count of what that changes.

    `errors`: by tensor, (sum of squared changes, sum of squared weights), against the weights as
    the source's own integers, zero points and scales have them.
    """

    errors: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __call__(
        self, name: str, rows_of: RowsOf, shape: tuple[int, ...], group_size: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`quantize_groups` of a weight [N, K] that `rows_of` gives some rows of at a time, or
        `quantize_channels` where there is no group size. The error is noted under `name`."""
        rows, columns = shape
        values = torch.empty(shape, dtype=torch.int8)
        scales = torch.empty((rows, columns // group_size) if group_size else (rows,))
        error = total = 0.0
        step = max(1, _ELEMENTS_AT_ONCE // columns)
        for first in range(0, rows, step):
            part = slice(first, first + step)
            weight = rows_of(part)
            rounded = (
                quantize_groups(weight, group_size) if group_size else quantize_channels(weight)
            )
            values[part], scales[part] = rounded
            of_part = squared_error(weight, *rounded)
            error, total = error + of_part[0], total + of_part[1]
        self.note(name, (error, total))
        return values, scales

    def note(self, name: str, error: tuple[float, float]) -> None:
        """Count the tensor `name`, whose (squared changes, squared weights) are `error`, unless
        nothing changed."""
        if error[0]:
            self.errors[name] = error

    def relative_rms_error(self) -> float:
        """The change of all the tensors that were rounded anew, relative to their weights."""
        error = sum(part[0] for part in self.errors.values())
        total = sum(part[1] for part in self.errors.values())
        return sqrt(error / total) if total else 0.0
