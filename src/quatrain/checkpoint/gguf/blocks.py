"""A GGUF tensor, and what its blocks hold: of each type what the gguf package says, of Q1_0 what it
does not say yet, and of Q4_0 the integers."""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES

from quatrain.checkpoint.files.lazy_tensors import MadeByRows

_ELEMENTS_AT_ONCE = 1 << 20  # unpacked at a time: 4 MB of float32


@dataclass(frozen=True)
class GgufTensor:
    """One tensor's description: `shape` outermost first, `data` its raw bytes [rows, row bytes].

    `rows`: which of those rows it has, in which order. `columns`: in which order it has the values
    of each. None: all, as they lie. `factors`: what each row of `data` is to be multiplied by."""

    name: str
    type_name: str
    shape: tuple[int, ...]
    data: np.ndarray
    rows: np.ndarray | None = None
    columns: np.ndarray | None = None
    factors: np.ndarray | None = None

    def part(self, name: str, first: int, shape: tuple[int, ...]) -> "GgufTensor":
        """The tensor `name` of that `shape` that begins at the row `first` of `data`."""
        rows = slice(first, first + math.prod(shape[:-1]))
        factors = None if self.factors is None else self.factors[rows]
        return replace(self, name=name, shape=shape, data=self.data[rows], factors=factors)

    def packed(self, wanted: slice = slice(None)) -> np.ndarray:
        """The bytes of the `wanted` of its rows, their values as they lie."""
        return self.data[wanted if self.rows is None else self.rows[wanted]]


@cache
def readable_types() -> list[gguf.GGMLQuantizationType]:
    """The types that can be dequantized, found by an empty block of each."""
    found = []
    for kind, (_, block_bytes) in GGML_QUANT_SIZES.items():
        with suppress(NotImplementedError):
            _dequantized(np.zeros((1, block_bytes), np.uint8), kind)
            found.append(kind)
    return found


def _dequantized(packed: np.ndarray, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    """The float32 values of rows of blocks. Raises `NotImplementedError` for an unknown `kind`."""
    if kind != gguf.GGMLQuantizationType.Q1_0:
        return gguf.quants.dequantize(packed, kind)
    # A float16 scale and 128 bits, the lowest first: the scale, or its negative where a bit is 0.
    blocks = packed.reshape(len(packed), -1, 18)
    scales = blocks[..., :2].copy().view("<f2").astype(np.float32)
    bits = np.unpackbits(blocks[..., 2:], axis=-1, bitorder="little")
    return np.where(bits, scales, -scales).reshape(len(packed), -1)


def dequantizer(tensor: GgufTensor) -> MadeByRows:
    """What makes `tensor`'s float32 values, any of its rows at a time."""
    kind = gguf.GGMLQuantizationType[tensor.type_name]

    def rows(wanted: slice) -> torch.Tensor:
        packed = tensor.packed(wanted)
        values = np.empty((len(packed), tensor.shape[-1]), np.float32)
        for some in _blocks_of_rows(values):
            with np.errstate(all="ignore"):  # a damaged scale's NaN is refused by who reads it
                found = _dequantized(packed[some], kind)
            values[some] = found if tensor.columns is None else found[:, tensor.columns]
        if tensor.factors is not None:
            factors = tensor.factors if tensor.rows is None else tensor.factors[tensor.rows]
            values *= factors[wanted, None]
        return torch.from_numpy(values)

    return MadeByRows(tensor.shape, rows)


def with_scales(tensors: dict[str, GgufTensor]) -> dict[str, GgufTensor]:
    """`tensors` with each matrix F.weight that has F.scale beside it, one number or one for each
    expert, as llama.cpp's converter takes them from NVFP4, to be multiplied by that; and without
    F.input_scale, by which a runtime would round what F reads."""
    found = dict(tensors)
    for name, tensor in tensors.items():
        module, _, part = name.rpartition(".")
        weight = tensors.get(f"{module}.weight")
        if weight is None or len(weight.shape) < 2 or part not in ("scale", "input_scale"):
            continue
        counts = (1, weight.shape[0]) if len(weight.shape) == 3 else (1,)
        if tensor.type_name != "F32" or math.prod(tensor.shape) not in counts:
            continue  # it is no such scale, and unknown
        del found[name]
        if part == "scale":
            each = dequantizer(tensor)().flatten().numpy()
            factors = each.repeat(len(weight.data) // len(each))
            found[weight.name] = replace(weight, factors=factors)
    return found


def keeps_q4_0_blocks(tensor: GgufTensor) -> bool:
    """Whether `tensor` is a matrix, or several, of Q4_0 whose blocks stay whole."""
    if tensor.type_name != "Q4_0" or len(tensor.shape) < 2 or tensor.factors is not None:
        return False
    if tensor.columns is None:
        return True
    blocks = tensor.columns.reshape(-1, 32)
    firsts = blocks[:, :1]
    return not (firsts % 32).any() and bool((blocks == firsts + np.arange(32)).all())


def q4_0_blocks(tensor: GgufTensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A Q4_0 tensor's own integers, int8 [..., K] in [-8, 7], and scales, float32 [..., K/32], of
    one that `keeps_q4_0_blocks`.

    Exact: the scales are the file's float16 values, which may be negative. A block is a float16
    scale and 16 bytes; byte j holds element j in its low half and element j + 16 in its high
    half, both offset by 8.
    """
    packed_rows = tensor.packed()
    blocks = packed_rows.reshape(len(packed_rows), -1, 18)
    if tensor.columns is not None:
        blocks = blocks[:, tensor.columns[::32] // 32]
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
