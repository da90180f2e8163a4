"""Joins Meta's model-parallel shards, consolidated.00.pth and so on, to whole tensors.

Each shard holds a slice of every matrix: of its rows where the layer splits its output (wq, wk, wv,
w1, w3, output), of its columns where it splits its input (wo, w2); the same for the experts of
Llama 4, [experts, N, K]. The embedding is split by columns in Llama 2 and by rows in Llama 3. Norms
and routers are in every shard. (Meta's `llama_models`, its `model.py`: ColumnParallelLinear,
RowParallelLinear, ParallelEmbedding, VocabParallelEmbedding; `moe.py`: Experts.)
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from quatrain.checkpoint.files.formats import only_file
from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.files.shards import numbered_shards, read_merged
from quatrain.checkpoint.files.tensor_file import read_tensors
from quatrain.checkpoint.naming_conventions import META, require_naming_convention
from quatrain.checkpoint.wrapped_names import unwrapped
from quatrain.errors import InputError

_SHARDS = "consolidated.[0-9][0-9].pth"
_FEED_FORWARD = r"feed_forward\.((shared_expert|experts)\.)?"
_BY_ROWS = re.compile(
    rf"layers\.\d+\.(attention\.w[qkv]|{_FEED_FORWARD}w[13])\.weight|output\.weight"
)
_BY_COLUMNS = re.compile(rf"layers\.\d+\.(attention\.wo|{_FEED_FORWARD}w2)\.weight")
_WHOLE = re.compile(r"(.*\.)?((\w*norm|feed_forward\.router)\.weight|rope\.freqs)")


def tensor_files(folder: Path) -> list[Path]:
    """Meta's shards, or the files whose tensors are whole."""
    return sorted(folder.glob(_SHARDS)) or _whole_files(folder)


def read_meta_files(
    folder: Path, dim: Any, renamed: Callable[[LazyTensors], LazyTensors]
) -> LazyTensors:
    """The tensors of the .pth or .safetensors files in `folder`, or of all its shards.

    `dim`: the model's width, which tells how its embedding is split. `renamed` gives those of a
    file the backbone's names. Raises `InputError` if a shard is missing, or does not hold the same
    tensors as the first.
    """
    shards = sorted(folder.glob(_SHARDS))
    if len(shards) < 2:
        whole, _ = read_merged(shards or _whole_files(folder))
        stored = unwrapped(whole, str(folder))
        require_naming_convention(META, stored, folder)
        return renamed(stored)
    expected = [f"consolidated.{index:02}.pth" for index in range(len(shards))]
    if [shard.name for shard in shards] != expected:
        raise InputError(
            f"{folder}: holds {', '.join(shard.name for shard in shards)}, expected "
            f"{', '.join(expected)}; download the missing ones"
        )
    parts = [renamed(read_tensors(shard)).stored for shard in shards]
    for shard, stored in zip(shards, parts, strict=True):
        if stored.keys() != parts[0].keys():
            name = sorted(stored.keys() ^ parts[0].keys())[0]
            raise InputError(f"{shard}: {name} is not in every shard; download them again")
    return LazyTensors(
        {
            name: _joined_tensor(name, [stored[name] for stored in parts], dim, folder)
            for name in parts[0]
        }
    )


def _whole_files(folder: Path) -> list[Path]:
    """Quatrain's own, Mistral's (which lies beside shards in Hugging Face's names), numbered ones,
    or the one there is."""
    for name in ("model.safetensors", "consolidated.safetensors"):
        if (folder / name).is_file():
            return [folder / name]
    return numbered_shards(folder) or [only_file(folder, (".pth", ".pt", ".ckpt", ".safetensors"))]


def _joined_tensor(name: str, parts: list[StoredTensor], dim: Any, folder: Path) -> StoredTensor:
    if _WHOLE.fullmatch(name):
        return replace(parts[0], load=lambda: _equal_in_all_shards(name, parts, folder))
    first = parts[0]
    if _BY_ROWS.fullmatch(name):
        axis = -2
    elif _BY_COLUMNS.fullmatch(name):
        axis = -1
    elif name == "tok_embeddings.weight":
        axis = -2 if first.shape[-1:] == (dim,) else -1
    else:
        raise InputError(f"{folder}: it is unknown how {name} is split over the shards")
    if any((part.shape, part.dtype) != (first.shape, first.dtype) for part in parts):
        raise InputError(f"{folder}: {name} differs in shape or dtype between shards")
    if len(first.shape) != (3 if ".experts." in name else 2):
        raise InputError(f"{folder}: {name} has shape {list(first.shape)}, expected a matrix")
    shape = list(first.shape)
    shape[axis] *= len(parts)
    return StoredTensor(
        tuple(shape), first.dtype, lambda: torch.cat([part.load() for part in parts], dim=axis)
    )


def _equal_in_all_shards(name: str, parts: list[StoredTensor], folder: Path) -> torch.Tensor:
    """What every shard holds whole. Raises `InputError` if one holds another."""
    first, *others = (part.load() for part in parts)
    if not all(torch.equal(first, other) for other in others):
        raise InputError(
            f"{folder}: {name} differs between shards: they belong to several models; download "
            "the shards of one model again"
        )
    return first
