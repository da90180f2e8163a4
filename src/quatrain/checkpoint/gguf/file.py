"""Reads GGUF files: metadata and tensor descriptions checked against the file's size.

The format: magic, version, counts; typed key-value pairs; each tensor's name, dimensions (innermost
first), type and offset; then, aligned, the data. `gguf.GGUFReader` trusts every length in a file
and takes seconds for a vocabulary; this reader refuses a length that the file cannot hold.
"""

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf.constants import GGML_QUANT_SIZES

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.files.memory_map import map_file
from quatrain.checkpoint.files.pieces import how_to_join
from quatrain.checkpoint.gguf.blocks import GgufTensor, dequantizer, readable_types
from quatrain.checkpoint.gguf.parts import check_place, part_files
from quatrain.errors import InputError
from quatrain.multiples import up_to
from quatrain.stand_ins import refuse_stand_in

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q"}
_SCALARS |= {12: "d"}
_STRING, _ARRAY = 8, 9
# Types that llama.cpp wrote once and no longer reads, with what holds the same weights.
_WITHDRAWN = {31: "Q4_0", 32: "Q4_0", 33: "Q4_0", 36: "IQ4_NL", 37: "IQ4_NL", 38: "IQ4_NL"}
# Microsoft's own llama.cpp for BitNet gives I2_S, TL1 and TL2 the numbers from 36 on.
_OF_BITNET = "; if it is a BitNet of Microsoft's llama.cpp (I2_S, TL1), its Hugging Face folder"
_BIG_ENDIAN = (2 << 24, 3 << 24)  # the versions, read as little-endian
_MOST_DIMENSIONS = 4
_Header = tuple[str, tuple[int, ...], int, int]  # a tensor's name, shape, type and offset


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file's metadata by key, and its tensors by name, their data memory-mapped.

    A metadata value is an int, float, bool, str, list of str, or a numpy array of numbers.
    """

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]

    def float_tensors(self) -> LazyTensors:
        """The tensors, dequantized to float32 when they are read."""
        return LazyTensors(
            {
                name: StoredTensor(tensor.shape, torch.float32, dequantizer(tensor))
                for name, tensor in self.tensors.items()
            }
        )


def read_gguf(path: Path) -> GgufFile:
    """Open `path`, and with the first part of a split model the others beside it.

    Raises `InputError` if one is missing, cut short, damaged, or holds an unread type.
    """
    parts = [_read_part(part) for part in part_files(path)]
    for number, part in enumerate(parts):
        check_place(part.path, part.metadata, number, len(parts))
    tensors: dict[str, GgufTensor] = {}
    for part in parts:
        twice = tensors.keys() & part.tensors.keys()
        if twice:
            raise InputError(
                f"{part.path}: holds {min(twice)}, which another part also holds; download the "
                "parts of one model again"
            )
        tensors |= part.tensors
    return GgufFile(path, parts[0].metadata, tensors)


def _read_part(path: Path) -> GgufFile:
    try:
        return _parse(path, map_file(path))
    except (OSError, ValueError, struct.error) as error:
        refuse_stand_in(path)
        remedy = how_to_join(path) or "Download it again."
        raise InputError(f"{path}: is not a whole GGUF file: {error}. {remedy}") from error


class _Cursor:
    """Reads little-endian values one after the other, never past the end."""

    def __init__(self, data: mmap.mmap):
        self.data = data
        self.position = 0

    def require(self, count: int) -> None:
        if count > len(self.data) - self.position:
            raise ValueError(
                f"it needs {count} bytes at {self.position} and ends at {len(self.data)}"
            )

    def skip(self, count: int) -> int:
        """Move on by `count` bytes and return where they began."""
        self.require(count)
        start = self.position
        self.position += count
        return start

    def scalar(self, code: str) -> Any:
        return struct.unpack_from(f"<{code}", self.data, self.skip(struct.calcsize(f"<{code}")))[0]

    def string(self) -> str:
        length = self.scalar("Q")
        start = self.skip(length)
        return self.data[start : start + length].decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.scalar(_SCALARS[kind])
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self.array(self.scalar("I"), self.scalar("Q"))
        raise ValueError(f"its metadata has a value of unknown type {kind}")

    def array(self, kind: int, count: int) -> Any:
        if kind == _STRING:
            # Each string takes 8 bytes at least: an impossible count fails before the list grows.
            self.require(8 * count)
            return [self.string() for _ in range(count)]
        if kind not in _SCALARS:
            raise ValueError(f"its metadata has an array of type {kind}, which is not supported")
        dtype = np.dtype(f"<{_SCALARS[kind]}")
        start = self.skip(count * dtype.itemsize)
        return np.frombuffer(self.data, dtype, count, start)


def _parse(path: Path, mapped: mmap.mmap) -> GgufFile:
    cursor = _Cursor(mapped)
    magic, version = cursor.scalar("4s"), cursor.scalar("I")
    if magic == b"GGUF" and version in _BIG_ENDIAN:
        raise InputError(
            f"{path}: is a big-endian GGUF file; convert a copy of it with `gguf-convert-endian "
            f"{path} little`, which is installed with Quatrain"
        )
    if magic != b"GGUF":
        raise ValueError(f"it starts with {magic!r}, expected b'GGUF'")
    _check_version(path, version)
    tensor_count, metadata_count = cursor.scalar("Q"), cursor.scalar("Q")
    metadata: dict[str, Any] = {}
    for _ in range(metadata_count):
        key = cursor.string()
        metadata[key] = cursor.value(cursor.scalar("I"))
    headers = [_tensor_header(cursor) for _ in range(tensor_count)]

    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise ValueError(f"general.alignment is {alignment!r}, expected a power of two")
    base = up_to(cursor.position, alignment)
    tensors, end = _tensors(path, mapped, headers, base, alignment)
    if mapped[end : end + 4] == magic:
        raise InputError(
            f"{path}: holds a second GGUF file after the first, as if the parts of a split model "
            "were joined byte by byte; give the first of the original parts, with the others "
            "beside it, or join them with llama.cpp's `llama-gguf-split --merge FIRST_PART OUT`"
        )
    return GgufFile(path, metadata, tensors)


def _tensors(
    path: Path, mapped: mmap.mmap, headers: list[_Header], base: int, alignment: int
) -> tuple[dict[str, GgufTensor], int]:
    """(the tensors by name, which lie one behind the other from `base` on; where they end)"""
    tensors: dict[str, GgufTensor] = {}
    end = 0
    for name, shape, kind, offset in headers:
        if name in tensors:
            raise ValueError(f"tensor {name} occurs twice")
        if offset != end:
            raise InputError(
                f"{path}: tensor {name} begins at {offset}, expected {end}: the tensor before it "
                "is damaged, or its type number means another type in llama.cpp; use a file that "
                "llama.cpp reads"
            )
        tensors[name] = _locate(path, mapped, name, shape, kind, base + offset)
        end += up_to(tensors[name].data.nbytes, alignment)
    return tensors, base + end


def _check_version(path: Path, version: int) -> None:
    if version == 1:
        raise InputError(
            f"{path}: is a GGUF file of version 1, of August 2023, expected 2 or 3; use a newer "
            "file of the model, or its folder of the Hugging Face hub"
        )
    if version not in (2, 3):
        raise InputError(
            f"{path}: is a GGUF file of version {version}, expected 2 or 3; write it again with a "
            "converter of version 3, or give the model's folder of the Hugging Face hub"
        )


def _tensor_header(cursor: _Cursor) -> _Header:
    name = cursor.string()
    dimensions = cursor.scalar("I")
    if not 1 <= dimensions <= _MOST_DIMENSIONS:
        raise ValueError(f"tensor {name} has {dimensions} dimensions")
    shape = tuple(cursor.scalar("Q") for _ in range(dimensions))[::-1]
    return name, shape, cursor.scalar("I"), cursor.scalar("Q")


def _type(path: Path, name: str, kind: int) -> gguf.GGMLQuantizationType:
    if kind in _WITHDRAWN:
        usual = _WITHDRAWN[kind]
        ternary = "" if usual == "Q4_0" else _OF_BITNET
        raise InputError(
            f"{path}: tensor {name} is {usual} repacked for one processor (type {kind}), which "
            f"llama.cpp no longer reads either; use the model's {usual} file{ternary}"
        )
    try:
        return gguf.GGMLQuantizationType(kind)
    except ValueError:
        raise InputError(
            f"{path}: tensor {name} is of the type {kind}, which the gguf package does not know; "
            "use the model's F16 or Q8_0 file, or if this is one, download it again"
        ) from None


def _locate(
    path: Path, mapped: mmap.mmap, name: str, shape: tuple[int, ...], kind: int, start: int
) -> GgufTensor:
    ggml_type = _type(path, name, kind)
    if ggml_type not in readable_types():
        raise InputError(
            f"{path}: tensor {name} is {ggml_type.name}, expected one of "
            f"{', '.join(kind.name for kind in readable_types())}; use the model's F16 or Q8_0 "
            "file"
        )
    block, block_bytes = GGML_QUANT_SIZES[ggml_type]
    elements = int(np.prod(shape, dtype=object))
    if elements == 0 or shape[-1] % block:
        raise ValueError(f"tensor {name} of shape {list(shape)} does not divide into {block}s")
    row_bytes = shape[-1] // block * block_bytes
    nbytes = elements // block * block_bytes
    if start + nbytes > len(mapped):
        raise ValueError(
            f"tensor {name} needs {nbytes} bytes at {start}, the file ends at {len(mapped)}"
        )
    data = np.frombuffer(mapped, np.uint8, nbytes, start).reshape(-1, row_bytes)
    return GgufTensor(name, ggml_type.name, shape, data)
