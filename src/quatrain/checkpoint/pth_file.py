"""Reads PyTorch's `.pth` files as data: no code in them runs, no tensor is copied."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from quatrain.checkpoint.tensors import LazyTensors, StoredTensor
from quatrain.errors import InputError


def read_pth(path: Path) -> LazyTensors:
    """The state dict in `path`, memory-mapped.

    Raises `InputError` where the file is damaged, holds anything but tensors by name, would
    run code when loaded, or is in the format before PyTorch 1.6, which cannot be mapped.
    """
    if path.suffix == ".safetensors":
        # torch.load goes by the name and would hand it to the other reader.
        raise InputError(f"{path}: is a .pth file under another name; rename it to .pth")
    _check_container(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except MemoryError:
        raise
    except Exception as error:
        # The unpickler of a damaged file raises nearly anything: KeyError, EOFError,
        # RuntimeError, UnpicklingError, struct.error ...
        first_line = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{path}: cannot be read as tensors alone: {first_line} "
            "Such a file is damaged or would run code when loaded, so it is refused; "
            "save the model's plain state dict, or use .safetensors."
        ) from error
    return LazyTensors(
        {name: _stored(path, name, tensor) for name, tensor in _state_dict(path, content).items()}
    )


def _check_container(path: Path) -> None:
    """Refuse an archive whose parts do not lie inside the file, before PyTorch allocates them."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"{path}: is not a whole .pth archive: {error}. A file saved before PyTorch 1.6, or "
            "cut short, cannot be mapped into memory: download it again, or save it with "
            "torch.save(state_dict, path)."
        ) from error
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > size:
            raise InputError(
                f"{path}: its part {member.filename!r} of {member.file_size} bytes is compressed "
                f"or larger than the file's {size} bytes; the file is damaged, download it again"
            )


def _state_dict(path: Path, content: Any) -> dict[str, torch.Tensor]:
    if not isinstance(content, dict) or not content:
        raise InputError(
            f"{path}: holds a {type(content).__name__}, expected a state dict of tensors by name"
        )
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise InputError(
                f"{path}: the entry {name!r} is a {type(value).__name__}, expected a tensor; "
                "save the model's state dict alone"
            )
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized:
            raise InputError(
                f"{path}: {name} is not a plain tensor (layout {value.layout}, device "
                f"{value.device}); save the model's state dict with dense tensors"
            )
    return content


def _stored(path: Path, name: str, tensor: torch.Tensor) -> StoredTensor:
    tensor = tensor.detach()
    return StoredTensor(tuple(tensor.shape), tensor.dtype, lambda: tensor)
