"""Eight 4-bit numbers in an int32: how GPTQ, AWQ and compressed-tensors pack theirs."""

import torch

from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.errors import InputError

_SHIFTS = torch.arange(0, 32, 4, dtype=torch.int32)
_IN_ORDER = (0, 1, 2, 3, 4, 5, 6, 7)
_ELEMENTS_AT_ONCE = 1 << 22
_MIDDLE = 8  # the unsigned number that stands for 0


def unpack_columns(packed: torch.Tensor, order: tuple[int, ...] = _IN_ORDER) -> torch.Tensor:
    """int32 [R, C] to int8 [R, 8 * C]: the numbers 0 to 15 less 8.

    Column 8c + order[i] lies in bits 4i to 4i + 3 of word c.
    """
    rows, words = packed.shape
    values = torch.empty((rows, words, 8), dtype=torch.int8)
    # order[i] = j says where nibble i goes, so column j comes from nibble inverse[j].
    inverse = torch.tensor(order).argsort()
    shifts = _SHIFTS[inverse]
    step = max(1, _ELEMENTS_AT_ONCE // max(1, words * 8))
    for first in range(0, rows, step):
        block = packed[first : first + step, :, None]
        values[first : first + step] = ((block >> shifts) & 15).to(torch.int8) - _MIDDLE
    return values.view(rows, words * 8)


def int32_matrix(stored: StoredTensor, name: str, source: str) -> tuple[int, int]:
    """The shape of `stored`. Raises `InputError` unless it is an int32 matrix."""
    if stored.dtype != torch.int32 or len(stored.shape) != 2 or 0 in stored.shape:
        found = str(stored.dtype).removeprefix("torch.")
        raise InputError(
            f"{source}: {name} is {found} {list(stored.shape)}, expected an int32 matrix of "
            "eight 4-bit numbers a word"
        )
    return stored.shape[0], stored.shape[1]


def expect_shape(
    stored: StoredTensor, shape: tuple[int, ...], name: str, source: str, floating: bool = False
) -> None:
    """Raise `InputError` unless `stored` has `shape` and is floating where it must be."""
    if tuple(stored.shape) != shape or (floating and not stored.dtype.is_floating_point):
        found = str(stored.dtype).removeprefix("torch.")
        raise InputError(
            f"{source}: {name} is {found} {list(stored.shape)}, expected {list(shape)}"
            f"{' of floating point' if floating else ''}; the file is damaged, or its "
            "quantization_config is another model's"
        )
