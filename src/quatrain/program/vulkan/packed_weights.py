"""The packed int4 weights of a program as numpy arrays.

Layout: `executorch/backends/vulkan/patterns/weight_packing_utils.py` and `quantized_linear.py`.
"""

import numpy as np

from quatrain.errors import InputError
from quatrain.int4 import CHANNELS_TOGETHER
from quatrain.multiples import up_to

_ROWS = 1024  # rows unpacked at a time, so that memory stays small for any weight


def dequantized_rows(packed: np.ndarray, scales: np.ndarray, rows: slice) -> np.ndarray:
    """Some rows of a linear's weight: uint8 [N, K/2], scales [K/group, N] -> float32 [rows, K]."""
    return _scaled(_nibbles(packed[rows]), scales[:, rows].T)


def _nibbles(packed: np.ndarray, even_low: bool = True) -> np.ndarray:
    """uint8 [rows, K/2] -> uint8 [rows, K], 8 more than the int4 values."""
    pair = (packed & 15, packed >> 4) if even_low else (packed >> 4, packed & 15)
    return np.stack(pair, axis=-1).reshape(len(packed), -1)


def _scaled(nibbles: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """uint8 [rows, K] from `_nibbles`, scales [rows, groups] -> float32 [rows, K]."""
    spread = np.repeat(scales.astype(np.float32), nibbles.shape[1] // scales.shape[1], axis=1)
    return (nibbles.astype(np.float32) - 8) * spread


def stepped_over(channels: int) -> int:
    """How many stored scales or sums the kernels of int4 linears step over from group to group:
    their output channels, filled up to a multiple of 4."""
    return up_to(channels, CHANNELS_TOGETHER)


def group_sums(packed: np.ndarray, group_size: int) -> np.ndarray:
    """The sum of each group of a packed weight: uint8 [N, K/2] -> int32 [K/group, N].

    N is padded with zeros to what the kernel steps over (`stepped_over`). Raises `InputError` if
    the groups do not fill the rows.
    """
    if packed.ndim != 2 or packed.dtype != np.uint8:
        raise InputError(f"a packed weight is {packed.dtype}{list(packed.shape)}, not uint8 [N, K]")
    rows, columns = packed.shape[0], packed.shape[1] * 2
    if group_size < 2 or columns % group_size:
        raise InputError(f"groups of {group_size} do not fill rows of {columns} int4 weights")
    sums = np.zeros((columns // group_size, stepped_over(rows)), dtype=np.int32)
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
        nibbles = _nibbles(packed[first : first + _ROWS]).reshape(-1, group_size)
        signed = nibbles.astype(np.int16) - 8
        for side in (np.maximum(signed, 0), np.maximum(-signed, 0)):
            largest = max(largest, int(side.sum(axis=1, dtype=np.int32).max(initial=0)))
    return largest


def embedding_rows(packed: np.ndarray, scales: np.ndarray, even_low: bool) -> np.ndarray:
    """An int4 table, uint8 [V or more, D/2] with scales [V, D/group], as float32 [V, D].

    `even_low`: whether the low nibble is the even column, as in a linear's weight.
    """
    table = np.empty((len(scales), packed.shape[1] * 2), dtype=np.float32)
    for first in range(0, len(scales), _ROWS):
        rows = slice(first, min(first + _ROWS, len(scales)))
        table[rows] = _scaled(_nibbles(packed[rows], even_low), scales[rows])
    return table
