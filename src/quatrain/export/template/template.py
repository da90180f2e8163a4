"""A program of three layers whose constants are names, made once per architecture.

ExecuTorch lowers a placeholder backbone: the first three layers, with tensors that hold only their
identity. So weights never pass through the compiler, and the program serves every checkpoint of the
architecture.
"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from quatrain.atomic_files import cache_folder, whole_file
from quatrain.backbone.model import Backbone
from quatrain.errors import InputError
from quatrain.export.template.constants import tensors_of
from quatrain.export.template.key import template_key
from quatrain.int4 import Scheme
from quatrain.program.edit.replicated_layers import IrregularGraph

LAYERS = 3  # the first, the last, and one between to copy

_ANOTHER_CACHE = "set QUATRAIN_CACHE to a folder that can be written to"


def cached_template(
    backbone: Backbone,
    scheme: Scheme,
    settings: dict[str, Any],
    make: Callable[[Backbone, Path], None],
) -> Path:
    """The template program for `backbone`, whose parts are operators already.

    It is taken from the cache, or made by `make` from the placeholder backbone, with its int4
    linears in `scheme`, and then cached. `settings` is what else it depends on (see
    `template_key`). Raises `IrregularGraph` if there are too few layers or several kinds of them,
    so that the three lowered layers would not represent all.
    """
    config = backbone.config
    if config.n_layers < LAYERS:
        raise IrregularGraph(f"there are fewer than {LAYERS}")
    kinds = {config.layer(index) for index in range(1, config.n_layers)}
    if len(kinds) > 1 or config.per_layer_dim:
        raise IrregularGraph("its layers differ in kind")
    path = cache_folder() / "templates" / f"{template_key(backbone, scheme, settings)}.pte"
    if not path.is_file():
        _make_folder(path.parent)
        with whole_file(path, instead=_ANOTHER_CACHE) as temporary:
            make(_placeholder_backbone(backbone), temporary)
    return path


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: the cache folder cannot be created: {error.strerror}; {_ANOTHER_CACHE}"
        ) from error


def replace_tensor(module: nn.Module, name: str, tensor: torch.Tensor) -> None:
    """Put `tensor` in place of the one that is called `name` below `module`, as a parameter where
    that is one."""
    path, _, own = name.rpartition(".")
    parent = module.get_submodule(path)
    is_parameter = isinstance(getattr(parent, own), nn.Parameter)
    setattr(parent, own, nn.Parameter(tensor, requires_grad=False) if is_parameter else tensor)


def untouched_zeros(like: torch.Tensor) -> torch.Tensor:
    """Zeros of the shape and dtype of `like`; they take no memory until they are written to."""
    bytes_ = np.zeros(like.numel() * like.element_size(), dtype=np.uint8)
    return torch.from_numpy(bytes_).view(like.dtype).view(like.shape)


def _placeholder_backbone(backbone: Backbone) -> Backbone:
    """The first layers of `backbone`, with placeholders for all tensors."""
    memo: dict[int, Any] = {id(t): placeholder(t) for t in tensors_of(backbone).values()}
    first = nn.ModuleList(list(backbone.layers)[:LAYERS])
    memo[id(backbone.layers)] = copy.deepcopy(first, memo)
    return copy.deepcopy(backbone, memo)


def placeholder(tensor: torch.Tensor) -> torch.Tensor:
    """Zeros like `tensor` that take no memory; a parameter if `tensor` is one."""
    zeros = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
    return nn.Parameter(zeros, requires_grad=False) if isinstance(tensor, nn.Parameter) else zeros
