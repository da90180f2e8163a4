"""A GGUF tensor, and what its blocks hold: of each type what the gguf package says, and of Q4_0 the
integers."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES

from quatrain.checkpoint.files.lazy_tensors import MadeByRows

_ELEMENTS_AT_ONCE = 1 << 20  # unpacked at a time: 4 MB of float32


@dataclass(frozen=True)
class GgufTensor:
    """One tensor's description: `shape` outermost first, `data` its raw bytes [rows, row bytes]."""

    name: str
    type_name: str
    shape: tuple[int, ...]
    data: np.ndarray


@cache
def readable_types() -> list[gguf.GGMLQuantizationType]:
    """The types that the gguf package dequantizes, found by giving it an empty block of each."""
    found = []
    for kind, (_, block_bytes) in GGML_QUANT_SIZES.items():
        with suppress(NotImplementedError):
            gguf.quants.dequantize(np.zeros((1, block_bytes), np.uint8), kind)
            found.append(kind)
    return found


def dequantizer(tensor: GgufTensor) -> MadeByRows:
    """What makes `tensor`'s float32 values, any of its rows at a time."""
    kind = gguf.GGMLQuantizationType[tensor.type_name]

    def rows(wanted: slice) -> torch.Tensor:
        packed = tensor.data[wanted]
        values = np.empty((len(packed), tensor.shape[-1]), np.float32)
        for some in _blocks_of_rows(values):
            with np.errstate(all="ignore"):  # a damaged scale's NaN is refused by who reads it
                values[some] = gguf.quants.dequantize(packed[some], kind)
        return torch.from_numpy(values)

    return MadeByRows(tensor.shape, rows)


def q4_0_blocks(tensor: GgufTensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A Q4_0 tensor's own integers, int8 [..., K] in [-8, 7], and scales, float32 [..., K/32].

    Exact: the scales are the file's float16 values, which may be negative. A block is a float16
    scale and 16 bytes; byte j holds element j in its low half and element j + 16 in its high
    half, both offset by 8.
    """
    blocks = tensor.data.reshape(len(tensor.data), -1, 18)
    scales = blocks[..., :2].copy().view("<f2")[..., 0].astype(np.float32)
    values = np.empty((len(blocks), tensor.shape[-1]), np.int8)
    for some in _blocks_of_rows(values):
        packed = blocks[some, :, 2:]
        halves = values[some].reshape(*packed.shape[:2], 2, 16)
        halves[:, :, 0], halves[:, :, 1] = packed & 15, packed >> 4
        halves -= 8
    return (
        torch.from_numpy(values.reshape(tensor.shape)),
        torch.from_numpy(scales.reshape(*tensor.shape[:-1], -1)),
    )


def _blocks_of_rows(matrix: np.ndarray) -> Iterator[slice]:
    """The rows of `matrix`, as many at a time as fit a core's cache."""
    step = max(1, _ELEMENTS_AT_ONCE // matrix.shape[-1])
    return (slice(first, first + step) for first in range(0, len(matrix), step))
