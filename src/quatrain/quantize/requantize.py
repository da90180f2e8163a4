"""Weights that are quantized already, rounded anew where the layout cannot hold them."""

from dataclasses import dataclass, field
from math import sqrt

import torch

from quatrain.quantize.groups import quantize_groups, squared_error


@dataclass
class Requantization:
    """Rounds weights to symmetric int4 groups and keeps count of what that changes.

    `errors`: by tensor, (sum of squared changes, sum of squared weights), against the weights as
    the source's own integers, zero points and scales have them.
    """

    errors: dict[str, tuple[float, float]] = field(default_factory=dict)

    def __call__(
        self, name: str, weight: torch.Tensor, group_size: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`quantize_groups` of `weight` [N, K], its error noted under `name`."""
        rounded = quantize_groups(weight, group_size)
        self.note(name, squared_error(weight, *rounded))
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
