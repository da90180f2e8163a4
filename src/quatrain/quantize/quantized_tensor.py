"""What a method makes of one tensor, and what that changes in its weights."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from typing import NamedTuple

import torch


class RoundingError(NamedTuple):
    """What rounding changes in one tensor: sums over its weights as the source has them.

    `exact_groups`: how many groups the source held as int4 already (GGUF's Q4_0, Q3_K), which are
    kept exactly; `negative_scales`: how many groups have a negative scale. `zero_rows`: how many
    rows are 0 throughout.
    `why`: what a linear of a quantized source was, that it had to be rounded.
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
