"""Reads PyTorch's `.pth` files as data: no code in them runs, no tensor is copied.

The archive is a zip of uncompressed parts: a pickle that says what the tensors are, and the bytes
of each storage. PyTorch's own `weights_only` unpickler runs no code, but calls what it takes for
harmless, `bytearray` of any length among it; so the pickle's names are read first, and only those
that a state dict needs are let through.
"""

import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import torch

from quatrain.checkpoint.files.hqq_modules import without_modules
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.files.nested_state import innermost
from quatrain.checkpoint.files.torchao_tensor import EXPECTED, FLOAT8, INT8, TYPE, apart
from quatrain.errors import InputError
from quatrain.quiet import quiet

# What the pickle of a state dict may name: containers (DeepSpeed's has a set beside it), tensors,
# storages and dtypes.
_NAMES = re.compile(
    r"""collections\ OrderedDict
    | (builtins|__builtin__)\ set
    | torch\._utils\ _rebuild_(tensor|tensor_v[23]|parameter|wrapper_subclass)
    | torch\._tensor\ _rebuild_from_type_v2
    | torch\.storage\ (Untyped|Typed)Storage
    | torch\.serialization\ _get_layout
    | torch\.nn\.parameter\ Parameter
    | torch\ (\w+Storage|Size|Tensor|device|strided|bool|bfloat16|float\d+(_e\dm\w+)?|u?int\d+)""",
    re.VERBOSE,
)
_ENCRYPTED = 0x1  # of a zip member's flags
# How often the file's bytes may appear among its tensors: a tied output is the embedding's again.
_MOST_TIES = 4
_TORCHAO_NAMES = re.compile(
    rf"torchao\.quantization (?:{TYPE}|{INT8}|{FLOAT8})|torchao\.float8\.inference Float8MMConfig"
    r"|torchao\.quantization\.quantize_\.(?:workflows\.(?:intx|int8|float8)|common)\.\w+ \w+"
    r"|torchao\.quantization\.(?:granularity Per\w+|quant_primitives MappingType)"
)

# Tensors of classes that are not read, by the package they are from, with what helps.
_OTHER_TENSORS = {
    "torchao": EXPECTED,
    "torch.distributed": "which is one process's part of a tensor; save the whole model "
    "(get_model_state_dict of torch.distributed.checkpoint.state_dict, full_state_dict=True)",
    "bitsandbytes": "a quantized tensor; quantize the original model",
    "hqq": "a quantized tensor; quantize the original model",
    "optimum.quanto": "a quantized tensor; quantize the original model",
}


def read_pth(path: Path) -> LazyTensors:
    """The state dict in `path`, memory-mapped; torchao's tensors as their parts.

    Raises `InputError` if the file is damaged, holds anything but tensors by name, would run code
    when loaded, or is in the format before PyTorch 1.6, which cannot be mapped.
    """
    if path.suffix == ".safetensors":
        # torch.load goes by the name and would hand it to the other reader.
        raise InputError(f"{path}: is a .pth file with another suffix; rename it to .pth")
    if _check_names(path, _check_container(path)):
        with quiet():  # it tells the unpickler of its classes
            import torchao.quantization  # noqa: F401
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except MemoryError:
        raise
    except Exception as error:
        # The unpickler of a damaged file raises nearly anything: KeyError, EOFError,
        # RuntimeError, UnpicklingError, struct.error ...
        first_line = str(error).strip().partition("\n")[0] or type(error).__name__
        raise _not_tensors_alone(path, first_line) from error
    return LazyTensors(
        {name: _stored(tensor) for name, tensor in _state_dict(path, content).items()}
    )


def _check_container(path: Path) -> bytes:
    """Refuse an archive whose parts do not lie inside the file, before PyTorch allocates them;
    returns its pickle."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(path, members, size)
            pickles = [member for member in members if member.filename.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise zipfile.BadZipFile(f"it holds {len(pickles)} pickles, expected one")
            return archive.read(pickles[0])
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"{path}: is not a whole .pth archive: {error}. A file saved before PyTorch 1.6, or "
            "cut short, cannot be mapped into memory: download it again, or save it with "
            "torch.save(state_dict, path)."
        ) from error


def _check_members(path: Path, members: list[zipfile.ZipInfo], size: int) -> None:
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size > size:
            raise InputError(
                f"{path}: its part {member.filename!r} of {member.file_size} bytes is compressed "
                f"or larger than the file's {size} bytes; the file is damaged, download it again"
            )
        if member.flag_bits & _ENCRYPTED:
            raise InputError(
                f"{path}: its part {member.filename!r} is encrypted, which torch.save never does; "
                "the file is damaged, or was packed again with a password: download it again"
            )
    names = [member.filename for member in members]
    for name in names:
        if name.startswith("/") or ".." in name.split("/"):
            raise InputError(
                f"{path}: its part {name!r} has a path that leads out of the archive; do not "
                "trust it"
            )
    if len(set(names)) != len(names):
        raise InputError(f"{path}: two of its parts have the same name; the file is damaged")


def _check_names(path: Path, pickle: bytes) -> bool:
    """Refuse a pickle that names anything but tensors; returns whether torchao's are there."""
    torchao = False
    try:
        for opcode, argument, _ in pickletools.genops(pickle):
            if opcode.name in ("STACK_GLOBAL", "EXT1", "EXT2", "EXT4", "INST"):
                raise ValueError(
                    f"it has the opcode {opcode.name}, which torch.save does not write"
                )
            if opcode.name != "GLOBAL" or _NAMES.fullmatch(str(argument)):
                continue
            if not _TORCHAO_NAMES.fullmatch(str(argument)):
                _refuse_other_tensor(path, str(argument))
                raise ValueError(f"it names {str(argument)[:100]!r}, which no tensor needs")
            torchao = True
    except (ValueError, IndexError, UnicodeError) as error:
        raise _not_tensors_alone(path, str(error)) from error
    return torchao


def _not_tensors_alone(path: Path, why: str) -> InputError:
    return InputError(
        f"{path}: cannot be read as tensors only: {why.removesuffix('.')}. Such a file is damaged "
        "or would run code when loaded, so it is refused; save the model's plain state dict, or "
        "use .safetensors."
    )


def _refuse_other_tensor(path: Path, named: str) -> None:
    module, _, name = named.partition(" ")
    for package, remedy in _OTHER_TENSORS.items():
        if f"{module}.".startswith(f"{package}."):
            raise InputError(f"{path}: holds a {name[:100]} of {package}, {remedy}")


def _state_dict(path: Path, content: Any) -> dict[str, torch.Tensor]:
    if not isinstance(content, dict) or not content:
        raise InputError(
            f"{path}: holds a {type(content).__name__}, expected a state dict of tensors by name"
        )
    content = without_modules(path, innermost(path, content))
    tensors = {}
    for name, value in content.items():
        if not isinstance(name, str):
            raise InputError(
                f"{path}: {name!r:.60} is the name of a tensor, expected a string, such as "
                "model.norm.weight; save the model's state dict"
            )
        if not isinstance(value, torch.Tensor):
            raise InputError(
                f"{path}: the entry {name!r} is a {type(value).__name__}, expected a tensor; "
                "save only the model's state dict"
            )
        for part, tensor in apart(name, value).items():
            _check_plain(path, part, tensor)
            tensors[part] = tensor
    total, size = sum(tensor.nbytes for tensor in tensors.values()), path.stat().st_size
    if total > _MOST_TIES * size:
        raise InputError(
            f"{path}: its tensors hold {total} bytes, but the file only {size}; it is damaged or "
            "made to fill your disk, do not trust it"
        )
    return tensors


def _check_plain(path: Path, name: str, tensor: torch.Tensor) -> None:
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    if (
        not plain
        or tensor.layout != torch.strided
        or tensor.device.type != "cpu"
        or tensor.is_quantized
    ):
        raise InputError(
            f"{path}: {name} is not a plain tensor ({type(tensor).__name__}, layout "
            f"{tensor.layout}, device {tensor.device}); save the model's state dict with dense "
            "tensors"
        )
    stored = tensor.untyped_storage().nbytes()
    if tensor.nbytes > stored:
        raise InputError(
            f"{path}: {name} repeats {stored} bytes to {tensor.nbytes}; save it with .contiguous()"
        )


def _stored(tensor: torch.Tensor) -> StoredTensor:
    tensor = tensor.detach()
    return StoredTensor(tuple(tensor.shape), tensor.dtype, lambda: tensor)
