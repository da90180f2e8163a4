"""Numbers of a few bits in an int32: how GPTQ, AWQ and compressed-tensors pack theirs."""

import torch

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
