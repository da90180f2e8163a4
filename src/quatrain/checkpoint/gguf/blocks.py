"""A GGUF tensor and its blocks: dequantized by the gguf package (Q1_0 here), and the integers of
symmetric int4."""

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
        """The tensor `name` of that `shape` that begins at the row `first` of `data`; of a vector,
        at its number `first`."""
        if len(self.shape) == 1:  # in floating point: of one row
            width = self.data.shape[-1] // self.shape[0]
            numbers = slice(first * width, (first + shape[0]) * width)
            return replace(self, name=name, shape=shape, data=self.data[:, numbers])
        rows = slice(first, first + math.prod(shape[:-1]))
        factors = None if self.factors is None else self.factors[rows]
        return replace(self, name=name, shape=shape, data=self.data[rows], factors=factors)

    def packed(self, wanted: slice = slice(None)) -> np.ndarray:
        """The bytes of the `wanted` of its rows, their values as they lie."""
        return self.data[wanted if self.rows is None else self.rows[wanted]]


@dataclass(frozen=True)
class _Int4:
    """A type of symmetric int4: how many weights share a scale, and which bytes of a block say 1,
    as all its scales and as all its integers: where they begin, and what they are."""

    group_size: int
    scales: tuple[int, bytes]
    integers: tuple[int, bytes]

    def with_ones(self, data: np.ndarray, part: tuple[int, bytes]) -> np.ndarray:
        """`data`, rows of blocks, in which `part` of each says 1."""
        first, ones = part
        block = len(self.scales[1]) + len(self.integers[1])
        blocks = data.reshape(len(data), -1, block).copy()
        blocks[..., first : first + len(ones)] = np.frombuffer(ones, np.uint8)
        return blocks.reshape(data.shape)


_ONE = np.float16(1).tobytes()
_INT4 = {
    "Q4_0": _Int4(32, (0, _ONE), (2, b"\x99" * 16)),
    "TQ1_0": _Int4(256, (52, _ONE), (0, b"\xff" * 48 + b"\xfd" * 4)),
    "TQ2_0": _Int4(256, (64, _ONE), (0, b"\xaa" * 64)),
    "Q3_K": _Int4(16, (96, b"\x11" * 8 + b"\xaa" * 4 + _ONE), (0, b"\xff" * 32 + b"\x55" * 64)),
}


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
            continue  # not such a scale: unknown
        del found[name]
        if part == "scale":
            each = dequantizer(tensor)().flatten().numpy()
            factors = each.repeat(len(weight.data) // len(each))
            found[weight.name] = replace(weight, factors=factors)
    return found


def int4_group_size(tensor: GgufTensor) -> int | None:
    """How many weights share a scale in `tensor` where it is a matrix, or several, of symmetric
    int4 whose groups stay whole; None for others."""
    if tensor.type_name not in _INT4 or len(tensor.shape) < 2 or tensor.factors is not None:
        return None
    size = _INT4[tensor.type_name].group_size
    if tensor.columns is not None:
        groups = tensor.columns.reshape(-1, size)
        firsts = groups[:, :1]
        if (firsts % size).any() or (groups != firsts + np.arange(size)).any():
            return None
    return size


def int4_blocks(tensor: GgufTensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The own integers, int8 [..., K] in [-8, 7], and scales, float32 [..., K / group size], of a
    tensor that has an `int4_group_size`.

    Exact: the weights where all scales are 1, and where all integers are; scales may be negative.
    """
    form, kind = _INT4[tensor.type_name], gguf.GGMLQuantizationType[tensor.type_name]
    rows, columns = math.prod(tensor.shape[:-1]), tensor.shape[-1]
    values = np.empty((rows, columns), np.int8)
    scales = np.empty((rows, columns // form.group_size), np.float32)
    order = slice(None) if tensor.columns is None else tensor.columns
    for some in _blocks_of_rows(values):
        packed = tensor.packed(some)
        with np.errstate(all="ignore"):  # a damaged scale's NaN is refused by who reads it
            values[some] = _dequantized(form.with_ones(packed, form.scales), kind)[:, order]
            weights = _dequantized(form.with_ones(packed, form.integers), kind)[:, order]
        scales[some] = weights[:, :: form.group_size]
    return (
        torch.from_numpy(values.reshape(tensor.shape)),
        torch.from_numpy(scales.reshape(*tensor.shape[:-1], -1)),
    )


def _blocks_of_rows(matrix: np.ndarray) -> Iterator[slice]:
    """The rows of `matrix`, as many at a time as fit a core's cache."""
    step = max(1, _ELEMENTS_AT_ONCE // matrix.shape[-1])
    return (slice(first, first + step) for first in range(0, len(matrix), step))
