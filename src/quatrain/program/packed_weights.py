"""The packed int4 weights of a program, as numpy sees them.

Layout: `executorch/backends/vulkan/patterns/weight_packing_utils.py` and `quantized_linear.py`.
"""

import numpy as np

from quatrain.errors import InputError

_ROWS = 1024  # rows unpacked at a time, so that memory stays small for any weight


def dequantized_rows(packed: np.ndarray, scales: np.ndarray, rows: slice) -> np.ndarray:
    """Some rows of a linear's weight: uint8 [N, K/2], scales [K/group, N] -> float32 [rows, K]."""
    block = packed[rows]
    values = np.stack((block & 15, block >> 4), axis=-1).reshape(len(block), -1).astype(np.float32)
    groups = scales[:, rows].T.astype(np.float32)
    return (values - 8) * np.repeat(groups, values.shape[1] // groups.shape[1], axis=1)


def group_sums(packed: np.ndarray, group_size: int) -> np.ndarray:
    """The sum of each group of a packed weight: uint8 [N, K/2] -> int32 [K/group, N].

    N is padded with zeros to a multiple of 8, as the 8da4w kernel reads them. Raises
    `InputError` where the groups do not fill the rows.
    """
    if packed.ndim != 2 or packed.dtype != np.uint8:
        raise InputError(f"a packed weight is {packed.dtype}{list(packed.shape)}, not uint8 [N, K]")
    rows, columns = packed.shape[0], packed.shape[1] * 2
    if group_size < 2 or columns % group_size:
        raise InputError(f"groups of {group_size} do not fill rows of {columns} int4 weights")
    sums = np.zeros((columns // group_size, -(-rows // 8) * 8), dtype=np.int32)
    for first in range(0, rows, _ROWS):
        block = packed[first : first + _ROWS]
        # Each byte holds two values plus 8 each: low nibble + high nibble - 16.
        pairs = (block & 15).astype(np.int16) + (block >> 4) - 16
        grouped = pairs.reshape(len(block), -1, group_size // 2).sum(axis=2, dtype=np.int32)
        sums[:, first : first + len(block)] = grouped.T
    return sums


def largest_one_sided_sum(packed: np.ndarray, group_size: int) -> int:
    """The largest sum, over the groups of a packed weight uint8 [N, K/2], of a group's positive
    values or of the magnitudes of its negative ones."""
    largest = 0
    for first in range(0, packed.shape[0], _ROWS):
        block = packed[first : first + _ROWS]
        values = np.stack((block & 15, block >> 4), axis=-1).reshape(-1, group_size)
        signed = values.astype(np.int16) - 8
        for side in (np.maximum(signed, 0), np.maximum(-signed, 0)):
            largest = max(largest, int(side.sum(axis=1, dtype=np.int32).max(initial=0)))
    return largest


def embedding_rows(packed: np.ndarray, scales: np.ndarray, even_low: bool) -> np.ndarray:
    """An int4 table, uint8 [V or more, D/2] with scales [V, D/group], as float32 [V, D].

    `even_low`: whether the low nibble is the even column, as in a linear's weight.
    """
    table = np.empty((len(scales), packed.shape[1] * 2), dtype=np.float32)
    for first in range(0, len(scales), _ROWS):
        block = packed[first : min(first + _ROWS, len(scales))]
        nibbles = (block & 15, block >> 4) if even_low else (block >> 4, block & 15)
        values = np.stack(nibbles, axis=-1).reshape(len(block), -1).astype(np.float32) - 8
        groups = scales[first : first + len(block)].astype(np.float32)
        table[first : first + len(block)] = values * np.repeat(
            groups, values.shape[1] // groups.shape[1], axis=1
        )
    return table
