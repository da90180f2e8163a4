"""A linear's stored tensors held against the shape and dtype that they must have."""

import torch

from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.errors import InputError


def matrix_of(
    dtype: torch.dtype, stored: StoredTensor, name: str, expected: str, source: str
) -> tuple[int, int]:
    """The shape of `stored`, called `name`. Raises `InputError`, which says what was `expected`,
    unless it is a matrix of `dtype` and not empty."""
    if stored.dtype != dtype or len(stored.shape) != 2 or 0 in stored.shape:
        raise InputError(f"{source}: {name} is {stored}, expected {expected}")
    return stored.shape[0], stored.shape[1]


def words_of(stored: StoredTensor, name: str, source: str) -> tuple[int, int]:
    """The shape of `stored`. Raises `InputError` unless it is an int32 matrix."""
    expected = "an int32 matrix of packed numbers; quantize the model that it was made from"
    return matrix_of(torch.int32, stored, name, expected, source)


def expect_shape(
    stored: StoredTensor, shape: tuple[int, ...], name: str, source: str, floating: bool = False
) -> None:
    """Raise `InputError` unless `stored` has `shape` and is floating where it must be."""
    if tuple(stored.shape) != shape or (floating and not stored.dtype.is_floating_point):
        raise InputError(
            f"{source}: {name} is {stored}, expected {list(shape)}"
            f"{' of floating point' if floating else ''}; the file is damaged, or its "
            "quantization_config is another model's"
        )
