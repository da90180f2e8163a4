"""The result of a method for one tensor, and its rounding error."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import torch


class RoundingError(NamedTuple):
    """The rounding error of one tensor: sums over the source's weights.

    `exact_groups`: how many groups are already int4 in the source (such as GGUF's Q4_0), which are
    kept exactly; `negative_scales`: how many groups have a negative scale. `zero_rows`: how many
    rows contain only zeros; of a table, the most neighbouring ones that another row follows.
    `why`: why a linear of a quantized source had to be requantized.
    """

    squared_error: float
    squared_weight: float
    exact_groups: int = 0
    negative_scales: int = 0
    why: str = ""
    zero_rows: int = 0


@dataclass(frozen=True)
class QuantizedTensor:
    """The tensors to write for one of the source's, as `TensorPlan.specs` announces them.

    Integers int8 [..., K] and their scales float32 [..., K / group size], or [...] without groups;
    or the tensor as the source stores it, whose `error` is None.
    """

    tensors: tuple[torch.Tensor, ...]
    error: RoundingError | None


def relative_rms(errors: Iterable[RoundingError]) -> float:
    """The root of the sum of squared errors over that of squared weights, 0 without any."""
    errors = list(errors)
    squared_error = sum(error.squared_error for error in errors)
    squared_weight = sum(error.squared_weight for error in errors)
    return sqrt(squared_error / squared_weight) if squared_weight else 0.0
