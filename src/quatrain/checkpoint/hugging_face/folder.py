"""The tensors of a Hugging Face folder, in one file or in shards, safetensors or pickled."""

from pathlib import Path

from quatrain.checkpoint.files.formats import format_of, only_file, read_tensors
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.files.safetensors import read_metadata
from quatrain.errors import InputError
from quatrain.json_files import read_object

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_WHOLE = ("model.safetensors", "pytorch_model.bin")
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")


def tensor_files(folder: Path) -> list[Path]:
    """The files that hold the folder's tensors: one, or those that an index names.

    A whole file comes before an index beside it, and safetensors before pickled files. Raises
    `InputError` where an index names a file that is missing or outside the folder.
    """
    for whole, index in zip(_WHOLE, INDEXES, strict=True):
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            return _shards(folder, folder / index)
    for suffixes in ((".safetensors",), (".bin", ".pth", ".pt")):
        if any(file.suffix in suffixes for file in folder.iterdir()):
            return [only_file(folder, suffixes)]
    return [only_file(folder, _SUFFIXES)]  # says what was expected


def read_folder(folder: Path) -> tuple[LazyTensors, dict[str, str]]:
    """The tensors of all the folder's files by name, memory-mapped, and their headers' metadata."""
    merged, metadata = {}, {}
    for file in tensor_files(folder):
        found = read_tensors(file).stored
        twice = sorted(merged.keys() & found.keys())
        if twice:
            raise InputError(f"{file}: holds {twice[0]}, which another shard holds too")
        merged |= found
        if format_of(file) == "safetensors":
            metadata |= read_metadata(file)
    return LazyTensors(merged), metadata


def _shards(folder: Path, index: Path) -> list[Path]:
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise InputError(f"{index}: has no 'weight_map' of tensor names to files")
    shards = sorted(set(map(str, weight_map.values())))
    there = {file.name for file in folder.iterdir() if file.is_file()}
    for shard in shards:
        if shard not in there:
            raise InputError(
                f"{index}: names the file {shard[:300]!r}, which is not in the folder; "
                "download the model's missing files"
            )
    return [folder / shard for shard in shards]
