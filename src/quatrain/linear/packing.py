"""int4 values as the kernels store them: two in a byte."""

import torch
import torch.nn.functional as F

from quatrain.int4 import CHANNELS_TOGETHER, INT4_MAX, INT4_MIN

_ROWS_AT_ONCE = 4096
PACKED_ZEROS = 0x88  # two values of 0


def is_int4(tensor: torch.Tensor) -> bool:
    """Whether all of an int8 tensor lies in [-8, 7]."""
    # numpy's int8 minimum is much faster than torch's.
    values = tensor.numpy()
    return bool(values.min() >= INT4_MIN and values.max() <= INT4_MAX)


def pack_int4(weight: torch.Tensor) -> torch.Tensor:
    """int8 [N, K] holding values in [-8, 7], K even, to uint8 [N, K / 2].

    A byte holds its odd column + 8 in the high half and its even column + 8 in the low half.
    ExecuTorch's Vulkan kernels (`patterns/weight_packing_utils.py`) and XNNPACK's group-wise
    ones (`operators/node_visitor.py`) share this layout. Values are not checked.
    """
    packed = torch.empty((weight.shape[0], weight.shape[1] // 2), dtype=torch.uint8)
    for first in range(0, weight.shape[0], _ROWS_AT_ONCE):
        # A memory-mapped weight is read block by block. +8 cannot overflow uint8's wrap-around.
        block = weight[first : first + _ROWS_AT_ONCE].view(torch.uint8) + 8
        packed[first : first + _ROWS_AT_ONCE] = (block[:, 1::2] << 4) | block[:, ::2]
    return packed


def pack_int4_for_vulkan(weight: torch.Tensor) -> torch.Tensor:
    """As `pack_int4`, with rows of zeros behind: int8 [N, K] to uint8 [N up to a multiple of 4,
    K / 2]."""
    packed = pack_int4(weight)
    missing = -len(packed) % CHANNELS_TOGETHER
    return F.pad(packed, (0, 0, 0, missing), value=PACKED_ZEROS) if missing else packed


def group_sums(weight: torch.Tensor, group_size: int) -> torch.Tensor:
    """The sum of each group of int4 values: int8 [N, K] to int32 [K / group_size, N].

    What a dynamic-activation kernel multiplies by the activation's zero point.
    """
    sums = torch.empty((weight.shape[1] // group_size, weight.shape[0]), dtype=torch.int32)
    for first in range(0, weight.shape[0], _ROWS_AT_ONCE):
        block = weight[first : first + _ROWS_AT_ONCE].unflatten(1, (-1, group_size))
        sums[:, first : first + _ROWS_AT_ONCE] = block.sum(-1, dtype=torch.int32).T
    return sums
