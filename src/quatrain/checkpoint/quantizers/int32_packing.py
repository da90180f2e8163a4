"""Numbers of a few bits in an int32: how GPTQ, AWQ and compressed-tensors pack theirs."""

import torch

from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.errors import InputError

_ELEMENTS_AT_ONCE = 1 << 22


def unpack_columns(
    packed: torch.Tensor, order: tuple[int, ...] | None = None, bits: int = 4
) -> torch.Tensor:
    """int32 [R, C] to int8 [R, n * C], n numbers of `bits` a word: those less what stands for 0.

    Column n * c + order[i] lies in bits `bits * i` and up of word c; without an order in the i-th.
    """
    rows, words = packed.shape
    count = 32 // bits
    values = torch.empty((rows, words, count), dtype=torch.int8)
    shifts = torch.arange(0, count * bits, bits, dtype=torch.int32)
    if order is not None:
        # order[i] = j says where number i goes, so column j comes from number inverse[j].
        shifts = shifts[torch.tensor(order).argsort()]
    step = max(1, _ELEMENTS_AT_ONCE // max(1, words * count))
    middle = 1 << (bits - 1)  # the unsigned number that stands for 0
    for first in range(0, rows, step):
        block = packed[first : first + step, :, None]
        numbers = (block >> shifts) & ((1 << bits) - 1)
        values[first : first + step] = (numbers - middle).to(torch.int8)
    return values.view(rows, words * count)


def int32_matrix(stored: StoredTensor, name: str, source: str) -> tuple[int, int]:
    """The shape of `stored`. Raises `InputError` unless it is an int32 matrix."""
    if stored.dtype != torch.int32 or len(stored.shape) != 2 or 0 in stored.shape:
        found = str(stored.dtype).removeprefix("torch.")
        raise InputError(
            f"{source}: {name} is {found} {list(stored.shape)}, expected an int32 matrix of "
            "packed numbers; quantize the model that it was made from"
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
