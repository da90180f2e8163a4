"""A model in several files, NAME-00001-of-0000N and so on, with each tensor in one of them."""

import re
from collections.abc import Iterable
from pathlib import Path

import torch

from quatrain.checkpoint.files.formats import is_of_training
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.files.tensor_file import header_metadata, read_tensors
from quatrain.errors import InputError
from quatrain.folder_entries import entries

_SHARD = re.compile(r"(.+)-\d+-of-(\d+)\.(safetensors|bin)")
_USUAL = ("model", "pytorch_model")


def numbered_shards(folder: Path) -> list[Path]:
    """The shards in `folder`, those of transformers' NAMEs if there are several; [] if there are
    none, or it cannot be told which.

    Raises `InputError` if one is missing, or they are of several models.
    """
    found: dict[tuple[str, str], dict[Path, int]] = {}
    for file in entries(folder):
        if match := _SHARD.fullmatch(file.name):
            found.setdefault((match[3], match[1]), {})[file] = int(match[2])
    usual = [(suffix, name) for suffix in ("safetensors", "bin") for name in _USUAL]
    chosen = next((key for key in usual if key in found), None)
    if chosen is None and len(found) != 1:
        return []
    files = found[chosen or next(iter(found))]
    counts = set(files.values())
    if len(counts) > 1:
        shards = " and ".join(f"of {count}" for count in sorted(counts))
        raise InputError(
            f"{folder}: holds shards {shards}, which belong to several models, or to one that was "
            "saved twice; keep those of one"
        )
    count = counts.pop()
    if len(files) != count:
        raise InputError(
            f"{folder}: holds {len(files)} of {count} shards "
            f"({', '.join(file.name for file in [*files][:4])}); download the model's missing files"
        )
    return [*files]


def parts_of_one_model(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files in `folder` with one of `suffixes`, if there are several and no two of them hold a
    tensor of one name, as torchtune's hf_model_0001_0.pt and on do; [] otherwise."""
    files = [
        file
        for file in entries(folder)
        if file.suffix in suffixes and file.is_file() and not is_of_training(file.name)
    ]
    names = [name for file in files for name in read_tensors(file)] if len(files) > 1 else []
    return files if len(names) == len(set(names)) and names else []


def read_merged(files: Iterable[Path]) -> tuple[LazyTensors, dict[str, str]]:
    """The tensors of all `files` by name, memory-mapped, and their headers' metadata.

    A tensor that several hold alike counts once, as where a tied output is in another shard than
    the embedding. Raises `InputError` if two hold different tensors of one name.
    """
    merged, metadata = {}, {}
    holder: dict[str, Path] = {}
    for file in files:
        found = read_tensors(file).stored
        for name in sorted(merged.keys() & found.keys()):
            if not _are_equal(merged[name], found[name]):
                raise InputError(
                    f"{file}: holds another {name} than {holder[name].name}: one of the two is of "
                    "another model; download the shards of one model again, into an empty folder"
                )
        merged |= found
        holder |= dict.fromkeys(found, file)
        metadata |= header_metadata(file)
    return LazyTensors(merged), metadata


def _are_equal(one: StoredTensor, other: StoredTensor) -> bool:
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    return torch.equal(*(each.load().flatten().view(torch.uint8) for each in (one, other)))
