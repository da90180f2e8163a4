"""The tensors of a Hugging Face folder: one file or shards, safetensors or pickled."""

from pathlib import Path
from typing import Any

from quatrain.checkpoint.files.formats import PICKLED, only_file
from quatrain.checkpoint.files.lazy_tensors import LazyTensors
from quatrain.checkpoint.files.shards import numbered_shards, parts_of_one_model, read_merged
from quatrain.checkpoint.files.tensor_file import read_tensors
from quatrain.checkpoint.files.unread_files import unread_weights
from quatrain.checkpoint.wrapped_names import unwrapped, with_model_prefix
from quatrain.errors import InputError
from quatrain.folder_entries import entries, refuse_broken_link
from quatrain.json_files import read_object
from quatrain.short_lists import and_more

_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
MODELOPT_FILE = "hf_quant_config.json"
_SETTINGS = (
    "config.json", "generation_config.json", "quantize_config.json", "quant_config.json",
    MODELOPT_FILE,
)  # fmt: skip
_WHOLE = ("model.safetensors", "pytorch_model.bin")


def tensor_files(folder: Path) -> list[Path]:
    """The files that hold the folder's tensors: one, or those that an index names.

    A whole file comes before an index beside it, and safetensors before pickled files. Raises
    `InputError` if an index names a file that is missing or outside the folder.
    """
    for whole, index in zip(_WHOLE, _INDEXES, strict=True):
        if (folder / whole).is_file():
            _require_what_its_index_names(folder / whole, folder / index)
            return [folder / whole]
        if (folder / index).is_file():
            return _shards(folder, folder / index)
    numbered = numbered_shards(folder)
    if numbered:
        return numbered
    for suffixes in ((".safetensors",), PICKLED):
        if any(file.suffix in suffixes for file in entries(folder)):
            return parts_of_one_model(folder, suffixes) or [only_file(folder, suffixes)]
    return [only_file(folder, (".safetensors", *PICKLED))]  # says what was expected


def source_files(folder: Path) -> list[Path]:
    """The files that decide what is read of `folder`: the tensors', and those that say how."""
    tensors = tensor_files(folder)
    # The first index is read, and none beside a whole file.
    indexes = _existing(folder, _INDEXES)[:1] if len(tensors) > 1 else []
    return [*tensors, *indexes, *_existing(folder, _SETTINGS)]


def read_folder(folder: Path) -> tuple[LazyTensors, dict[str, str], tuple[str, ...]]:
    """The tensors of the folder's files by name, memory-mapped; their headers' metadata; notes on
    files that are not read, as transformers does not either."""
    files = tensor_files(folder)
    stored, metadata = read_merged(files)
    tensors = with_model_prefix(unwrapped(stored, str(folder)))
    return tensors, metadata, unread_weights(folder, files)


def _existing(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [folder / name for name in names if (folder / name).is_file()]


def _require_what_its_index_names(whole: Path, index: Path) -> None:
    """Refuse a `whole` file that training left beside the shards of `index`, which hold more."""
    if not index.is_file():
        return
    try:
        named = _weight_map(index)
    except InputError:
        return  # damaged, it is not read either
    missing = sorted(named.keys() - set(read_tensors(whole)))
    there = {file.name for file in whole.parent.iterdir()}
    if missing and there.issuperset(map(str, named.values())):
        raise InputError(
            f"{whole}: lacks {missing[0]}, which {index.name} beside it lists: one of the two "
            f"belongs to another model; remove {whole.name} to read the shards, or {index.name}"
        )


def _weight_map(index: Path) -> dict[str, Any]:
    weight_map = read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index}: has no 'weight_map' of tensor names to files")
    return weight_map


def _shards(folder: Path, index: Path) -> list[Path]:
    shards = sorted({Path(str(name)) for name in _weight_map(index).values()})
    for shard in shards:
        leads_out = shard.is_absolute() or ".." in shard.parts
        if not leads_out:
            refuse_broken_link(folder / shard)
        if leads_out or not _is_file(folder / shard):
            raise InputError(
                f"{index}: lists the file {str(shard)[:300]!r}, which is not in the folder; "
                f"{_remedy_without(index, folder)}"
            )
    return [folder / shard for shard in shards]


def _remedy_without(index: Path, folder: Path) -> str:
    """What to do where `index` lists a file that is not there: without it the shards are found by
    their own names, if all are there."""
    try:
        there = numbered_shards(folder)
    except InputError:
        there = []
    if not there:
        return "download the model's missing files"
    named = and_more([shard.name for shard in there])
    return f"if the model is {named}, remove the index, otherwise download the missing files"


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # its name is too long
        return False
