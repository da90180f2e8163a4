"""Reads and writes `.safetensors` files, one tensor at a time.

The format: 8 bytes, the header's length; the header, a JSON object of
`name: {dtype, shape, data_offsets}`; then the tensors' bytes without gaps.
"""

import json
import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.files.memory_map import map_file
from quatrain.errors import InputError
from quatrain.text_files import require_utf8_name

_DTYPES = {
    "I8": torch.int8,
    "U8": torch.uint8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "U32": torch.uint32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def read_safetensors(path: Path) -> LazyTensors:
    """The tensors of `path`, memory-mapped. Raises `InputError` if the file is not whole, or its
    name not UTF-8."""
    require_utf8_name(path, "the safetensors library")
    try:
        with safe_open(path, framework="pt") as file:  # checks the header, and it the file
            names = list(file.keys())
        mapped = map_file(path)
        start = 8 + int.from_bytes(mapped[:8], "little")
        header = json.loads(mapped[8:start])
        return LazyTensors(
            {name: _stored(path, mapped, start, name, header[name]) for name in names}
        )
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: is not a whole .safetensors file: {error}. Download or write it again."
        ) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The free-form metadata in the header of `path`."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _stored(
    path: Path, mapped: mmap.mmap, start: int, name: str, header: dict[str, Any]
) -> StoredTensor:
    dtype, shape = _DTYPES.get(header["dtype"]), tuple(header["shape"])
    if dtype is None:
        raise InputError(
            f"{path}: {name} has dtype {header['dtype']}, expected one of "
            f"{', '.join(sorted(_DTYPES))}; if a quantizer wrote it, quantize the original model"
        )
    offset, count = start + header["data_offsets"][0], math.prod(shape)

    def load() -> torch.Tensor:
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        return torch.frombuffer(mapped, dtype=dtype, count=count, offset=offset).view(shape)

    return StoredTensor(shape, dtype, load)


@dataclass(frozen=True)
class TensorSpec:
    """A tensor that is still to be written: its name, dtype and shape."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The size of the tensor, without padding."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def encoded_header(specs: list[TensorSpec]) -> bytes:
    """All that comes before the first tensor's bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for spec in specs:
        offsets = [end, end + spec.nbytes]
        header[spec.name] = {
            "dtype": _NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": offsets,
        }
        end = offsets[1]
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)  # keeps the data aligned to 8 bytes
    return len(encoded).to_bytes(8, "little") + encoded


def encoded_tensor(spec: TensorSpec, tensor: torch.Tensor) -> memoryview:
    """The bytes of `tensor`, which must be as `spec` says."""
    if (tensor.dtype, tuple(tensor.shape)) != (spec.dtype, spec.shape):
        raise ValueError(f"{tensor.dtype} {tuple(tensor.shape)} is not {spec}")
    # A view of its bytes: numpy has no bfloat16.
    return tensor.contiguous().view(torch.uint8).numpy().data
