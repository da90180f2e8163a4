"""Weights that are quantized already, rounded anew where the layout cannot hold them."""

from dataclasses import dataclass, field
from math import sqrt

import torch

from quatrain.checkpoint.files.lazy_tensors import RowsOf
from quatrain.quantize.methods.round_to_nearest import quantize_rows


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
        """`quantize_rows`, its error noted under `name`."""
        error, rounded = quantize_rows(rows_of, shape, group_size)
        self.note(name, error)
        return rounded

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
