"""A program of three layers whose constants are names, made once per architecture.

ExecuTorch lowers a twin of the backbone: its first three layers, on tensors that say which they
are and nothing else. So weights never pass through the compiler, and the twin's program serves
every checkpoint of the architecture.
"""

import copy
import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from quatrain.atomic_files import cache_folder, whole_file
from quatrain.backbone.model import Backbone
from quatrain.errors import InputError
from quatrain.program.edit.irregular import IrregularGraph

LAYERS = 3  # the first, the last, and one between to copy


def cached_template(
    backbone: Backbone, settings: dict[str, Any], make: Callable[[Backbone, Path], None]
) -> Path:
    """The template program for `backbone`, whose parts are operators already.

    Taken from the cache, or made by `make` of the twin and put there. `settings` is all that it
    depends on besides config, tensors and versions. Raises `IrregularGraph` where layers are few
    or of several kinds: the three that are lowered would not stand for all.
    """
    config = backbone.config
    if config.n_layers < LAYERS:
        raise IrregularGraph(f"there are fewer than {LAYERS}")
    if len({config.layer(index) for index in range(1, config.n_layers)}) > 1:
        raise IrregularGraph("its layers are of several kinds")
    path = cache_folder() / "templates" / f"{_fingerprint(backbone, settings)}.pte"
    if not path.is_file():
        _make_folder(path.parent)
        with whole_file(path) as temporary:
            make(_hollow_twin(backbone), temporary)
    return path


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: the cache cannot be made: {error.strerror}; "
            "set QUATRAIN_CACHE to a folder that can be written to"
        ) from error


def tensors_of(module: nn.Module) -> dict[str, torch.Tensor]:
    """Every tensor of `module` under the name that a template's constants use."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def source_of(module: nn.Module, tensor: str) -> str:
    """What the tensor of that name is made of, `form:tensor`, as `export.constants` has it."""
    path, _, buffer = tensor.rpartition(".")
    sources = getattr(module.get_submodule(path), "sources", {})
    form, _, part = sources.get(buffer, f"plain:{buffer}").partition(":")
    return f"{form}:{path}.{part}"


def untouched_zeros(like: torch.Tensor) -> torch.Tensor:
    """Zeros of the shape and dtype of `like`, which take no memory until they are written to."""
    bytes_ = np.zeros(like.numel() * like.element_size(), dtype=np.uint8)
    return torch.from_numpy(bytes_).view(like.dtype).view(like.shape)


def _fingerprint(backbone: Backbone, settings: dict[str, Any]) -> str:
    """A digest of all that a template depends on: shapes, settings, versions, our own code."""
    tensors = {name: [str(t.dtype), *t.shape] for name, t in tensors_of(backbone).items()}
    versions = {
        name: importlib.metadata.version(name) for name in ("torch", "executorch", "torchao")
    }
    code = hashlib.sha256()
    package = Path(__file__).parents[1]
    for folder in ("backbone", "linear", "export"):
        for source in sorted((package / folder).glob("*.py")):
            code.update(source.read_bytes())
    described = [
        backbone.config.to_params(), tensors, settings, versions, code.hexdigest(),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _hollow_twin(backbone: Backbone) -> Backbone:
    """The first layers of `backbone`, every tensor replaced by one that takes no memory."""
    skeleton = copy.copy(backbone)
    skeleton._modules = dict(backbone._modules)
    skeleton.layers = nn.ModuleList(list(backbone.layers)[:LAYERS])
    memo: dict[int, Any] = {id(t): _hollow(t) for t in tensors_of(skeleton).values()}
    return copy.deepcopy(skeleton, memo)


def _hollow(tensor: torch.Tensor) -> torch.Tensor:
    zeros = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
    return nn.Parameter(zeros, requires_grad=False) if isinstance(tensor, nn.Parameter) else zeros
