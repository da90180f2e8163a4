"""Packs and unpacks low-bit numbers in 32-bit words, as GPTQ, AWQ, compressed-tensors and MLX
do."""

import torch

_ELEMENTS_AT_ONCE = 1 << 22
_ROWS_AT_ONCE = 1024


def unpack_columns(
    packed: torch.Tensor, order: tuple[int, ...] | None = None, bits: int = 4
) -> torch.Tensor:
    """int32 [R, C] to int8 [R, n * C], n numbers of `bits` a word, minus the number that represents
    0.

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
    middle = 1 << (bits - 1)  # the unsigned number that represents 0
    for first in range(0, rows, step):
        block = packed[first : first + step, :, None]
        numbers = (block >> shifts) & ((1 << bits) - 1)
        values[first : first + step] = (numbers - middle).to(torch.int8)
    return values.view(rows, words * count)


def unpack_stream(words: torch.Tensor, bits: int, columns: int) -> torch.Tensor:
    """Words of 32 bits [R, C] to int8 [R, columns]: numbers of `bits` one after the other, across
    word boundaries, minus the number that represents 0."""
    octets, middle = words.contiguous().view(torch.uint8), 1 << (bits - 1)
    values = torch.empty((len(octets), columns), dtype=torch.int8)
    weights = 1 << torch.arange(bits, dtype=torch.uint8)
    for first in range(0, len(octets), _ROWS_AT_ONCE):
        some = octets[first : first + _ROWS_AT_ONCE]
        stream = (some[..., None] >> torch.arange(8, dtype=torch.uint8)) & 1  # the lowest first
        stream = stream.flatten(1)[:, : columns * bits]
        numbers = (stream.reshape(len(some), columns, bits) * weights).sum(-1)
        values[first : first + _ROWS_AT_ONCE] = (numbers - middle).to(torch.int8)
    return values


def word_counts(count: int, bits: int) -> tuple[int, int]:
    """How many words hold `count` numbers of `bits`, where words cut numbers, and where not."""
    return -(-count * bits // 32), -(-count // (32 // bits))


def unpack_words(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """int32 [R, C] to int8 [R, count]; numbers cross word boundaries if that gives C words."""
    if 32 % bits and words.shape[1] == word_counts(count, bits)[0]:
        return unpack_stream(words, bits, count)
    return unpack_columns(words, bits=bits)[:, :count]


def unpack_planes(words: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """int32 [R, C] to int8 [R, count], each 32 numbers in `bits` words: for each power of 2 in the
    binary form of `bits`, the largest first, that many bits of each number, the lowest first."""
    planes = [width for width in (8, 4, 2, 1) if bits & width]
    rows, blocks, middle = len(words), words.shape[1] // bits, 1 << (bits - 1)
    values = torch.empty((rows, blocks * 32), dtype=torch.int8)
    for first in range(0, rows, _ROWS_AT_ONCE):
        some = words[first : first + _ROWS_AT_ONCE].reshape(-1, blocks, bits)
        numbers, word, shift = torch.zeros((len(some), blocks, 32), dtype=torch.int32), 0, 0
        for width in planes:
            shifts = torch.arange(0, 32, width, dtype=torch.int32)
            parts = (some[..., word : word + width, None] >> shifts) & ((1 << width) - 1)
            numbers |= parts.flatten(2) << shift
            word, shift = word + width, shift + width
        values[first : first + _ROWS_AT_ONCE] = (numbers - middle).to(torch.int8).flatten(1)
    return values[:, :count]
