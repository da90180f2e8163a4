"""Tensors that hold a number, by which the constants of a lowered program are identified.

A number is written in digits from 1 to 127, one per element, the last digit first: they are exact
in every dtype, also int8 and half precision. No digit is 0, so that a tensor whose elements were
reordered among zeros does not represent another number.
"""

import numpy as np
import torch

from quatrain.export.template.template import untouched_zeros

_BASE = 127
_DIGITS = 3  # numbers up to 2 million


def numbered(like: torch.Tensor, number: int) -> torch.Tensor | None:
    """Zeros of the shape and dtype of `like` that begin with `number`, 1 or more; None if it has
    too few elements for it."""
    digits, rest = [], number - 1
    for _ in range(min(_DIGITS, like.numel())):
        digits.append(rest % _BASE + 1)
        rest //= _BASE
    if rest:
        return None
    tensor = untouched_zeros(like)
    tensor.view(-1)[: len(digits)] = torch.tensor(digits, dtype=like.dtype)
    return tensor


def read_number(constant: np.ndarray) -> int | None:
    """The number that `numbered` put into the tensor that became `constant`; None for none."""
    digits = constant.reshape(-1)[:_DIGITS].tolist()
    if not digits or any(digit not in range(1, _BASE + 1) for digit in digits):
        return None
    return 1 + sum((int(digit) - 1) * _BASE**power for power, digit in enumerate(digits))
