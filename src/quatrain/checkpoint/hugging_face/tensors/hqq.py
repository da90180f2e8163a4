"""Dequantizes matrices that HQQ rounded (Badri and Shaji, 2023), as transformers and hqq save them.

For a matrix F [N, K] in groups of S numbers, all of it what `HQQLinear.state_dict` of hqq 0.2
(`core/quantize.py`, `core/bitpack.py`) encodes:
F.W_q            uint8, or int32 of 3 bits: the numbers of F as a matrix [N * K / S, S] (F.axis 1)
                 or [S, N * K / S] (0), its rows cut into parts that lie beside one another in a
                 word, the first in the highest bits; or these bytes called floating point
F.scale, F.zero  float [N * K / S, 1] or [1, N * K / S]
F.shape, F.axis, F.group_size  numbers
F.packing        a text: 4bit_u8, for example
weight = (number - zero) * scale. F.nbits and others do not change what is read.
"""

import math
from dataclasses import dataclass

import torch

from quatrain.checkpoint.files.hqq_modules import NUMBERS, OTHER_PARTS
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.errors import InputError

HQQ = "hqq"
_MARK = f".{NUMBERS}"
_PARTS = (NUMBERS, *OTHER_PARTS)
_UNREAD = (
    "nbits", "unpack_view_dtype", "view_as_float", "quant_scale", "quant_zero", "compute_dtype",
    "offload_meta", "encoded_state_dict", "stores_quant_config", "channel_wise", "optimize",
    "round_zero",
)  # fmt: skip
# By what a matrix is packed in: the type of its words, and how many numbers of how many bits are in
# one.
_PACKINGS = {
    "8bit_u8": (torch.uint8, 1, 8), "4bit_u8": (torch.uint8, 2, 4), "3bit_32": (torch.int32, 10, 3),
    "2bit_u8": (torch.uint8, 4, 2), "1bit_u8": (torch.uint8, 8, 1),
}  # fmt: skip


@dataclass(frozen=True)
class _Packed:
    """A matrix of `shape` [N, K] whose numbers are packed in words of `kind`, `count` of `bits` in
    one."""

    words: StoredTensor
    scale: StoredTensor
    zero: StoredTensor
    shape: tuple[int, int]
    grid: tuple[int, int]  # of its numbers, as they were rounded
    kind: torch.dtype
    count: int
    bits: int

    def load(self) -> torch.Tensor:
        """float32 [N, K]"""
        words = self.words.load().contiguous().view(self.kind)
        shifts = range((self.count - 1) * self.bits, -1, -self.bits)
        parts = [words >> shift & ((1 << self.bits) - 1) for shift in shifts]
        numbers = torch.cat(parts)[: self.grid[0]].float()
        scaled = (numbers - self.zero.load().float()) * self.scale.load().float()
        return scaled.view(self.shape)

    @property
    def fits(self) -> bool:
        """Whether the words hold as many numbers as there are, and scales and zero points fit."""
        rows, columns = self.grid
        octets = math.prod(self.words.shape) * self.words.dtype.itemsize
        words = -(-rows // self.count) * columns
        of_groups = [(rows, 1), (1, columns)]
        floating = self.scale.dtype.is_floating_point and self.zero.dtype.is_floating_point
        return (
            len(self.words.shape) == 2
            and octets == words * self.kind.itemsize
            and rows * columns == math.prod(self.shape)
            and self.scale.shape == self.zero.shape
            and self.scale.shape in of_groups
            and floating
        )


def has_hqq(stored: LazyTensors) -> bool:
    """Whether HQQ rounded a matrix of `stored`."""
    return any(name.endswith(_MARK) for name in stored)


def without_hqq(stored: LazyTensors, source: str) -> LazyTensors:
    """`stored`, with each matrix that HQQ rounded in floating point. Raises `InputError`, naming
    `source`, if its parts are missing or do not fit one another."""
    tensors = dict(stored.stored)
    for name in stored:
        module = name.removesuffix(_MARK)
        if module == name:
            continue
        parts = {
            part: tensors.pop(f"{module}.{part}")
            for part in (*_PARTS, *_UNREAD)
            if f"{module}.{part}" in tensors
        }
        try:
            packed = _packed(parts)
        except (KeyError, ValueError, RuntimeError) as error:
            raise _misfit(module, source) from error
        if not packed.fits:
            raise _misfit(module, source)
        tensors[f"{module}.weight"] = StoredTensor(packed.shape, torch.float32, packed.load)
    return LazyTensors(tensors)


def _packed(parts: dict[str, StoredTensor]) -> _Packed:
    """The matrix of `parts`. Raises `KeyError`, `ValueError` or `RuntimeError` if they do not say
    what it is."""
    rows, columns = parts["shape"].load().tolist()
    axis, size = (int(parts[part].load().item()) for part in ("axis", "group_size"))
    kind, count, bits = _PACKINGS["".join(map(chr, parts["packing"].load().tolist()))]
    if axis not in (0, 1) or min(rows, columns, size) < 1:
        raise ValueError(f"{axis}, {rows}, {columns}, {size}")
    groups = rows * columns // size
    words = parts[NUMBERS]
    if words.dtype != kind and not words.dtype.is_floating_point:
        raise ValueError(f"{words.dtype}, expected {kind}")
    return _Packed(
        words=words,
        scale=parts["scale"],
        zero=parts["zero"],
        shape=(rows, columns),
        grid=(groups, size) if axis else (size, groups),
        kind=kind,
        count=count,
        bits=bits,
    )


def _misfit(module: str, source: str) -> InputError:
    return InputError(
        f"{source}: {module} is quantized by HQQ, but its parts ({', '.join(_PARTS)}) are "
        "missing or do not fit one another; download the model's files again, or quantize the "
        "original model"
    )
