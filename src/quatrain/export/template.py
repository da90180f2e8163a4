"""A Vulkan program of three layers whose constants are names, made once per architecture.

ExecuTorch lowers a twin of the backbone: its first three layers, with each tensor replaced by
one of its shape that holds nothing but a number. In the lowered graph that number says which
tensor a constant came from, so weights never pass through the compiler, and the twin's program
serves every checkpoint of the architecture.
"""

import copy
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from quatrain.backbone.model import Backbone
from quatrain.export.stamp import IrregularGraph
from quatrain.files import whole_file
from quatrain.program import Constant, Program, Tensor, open_program
from quatrain.stages import Stages

LAYERS = 3  # the first, the last, and one between to copy


def template_for(
    backbone: Backbone,
    compile_options: dict[str, Any],
    metadata: dict[str, Any],
    stages: Stages,
) -> Path:
    """The template program for `backbone`, whose parts are Vulkan operators already.

    Taken from the cache, or made and put there. Raises `IrregularGraph` where a constant of
    the lowered program cannot be told, or where layers are of several kinds: the three that are
    lowered would not stand for all.
    """
    config = backbone.config
    if len({config.layer(index) for index in range(1, config.n_layers)}) > 1:
        raise IrregularGraph("its layers are of several kinds")
    path = _cache_folder() / f"{_fingerprint(backbone, compile_options, metadata)}.pte"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            _make(backbone, compile_options, metadata, temporary, stages)
    return path


def _make(
    backbone: Backbone,
    compile_options: dict[str, Any],
    metadata: dict[str, Any],
    path: Path,
    stages: Stages,
) -> None:
    with stages("import the compiler"):
        from quatrain.export.packed import pack_layers
        from quatrain.export.vulkan import lower_to_vulkan

    twin, keys = _twin(backbone, pack_layers)
    manager = lower_to_vulkan(twin, compile_options, metadata, stages)
    with stages("name its constants"):
        with path.open("wb") as file:
            manager.write_to_file(file)
        program = open_program(path)
        _name_constants(program, keys)
        program.write(path)


def _cache_folder() -> Path:
    root = os.environ.get("QUATRAIN_CACHE")
    if root is None:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quatrain"
    return Path(root) / "templates"


def _fingerprint(
    backbone: Backbone, compile_options: dict[str, Any], metadata: dict[str, Any]
) -> str:
    """A digest of all that a template depends on: shapes, options, versions, our own code."""
    tensors = {name: [str(t.dtype), *t.shape] for name, t in _tensors(backbone).items()}
    versions = {
        name: importlib.metadata.version(name) for name in ("torch", "executorch", "torchao")
    }
    code = hashlib.sha256()
    package = Path(__file__).parents[1]
    for folder in ("backbone", "linear", "export"):
        for source in sorted((package / folder).glob("*.py")):
            code.update(source.read_bytes())
    described = [
        backbone.config.to_params(), tensors, str(backbone), compile_options, metadata, versions,
        code.hexdigest(),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def backbone_tensors(backbone: Backbone) -> dict[str, torch.Tensor]:
    """Every tensor of `backbone` under the name that a template's constants use."""
    return _tensors(backbone)


def _twin(backbone: Backbone, pack: Callable[[nn.Module], None]) -> tuple[Backbone, list[str]]:
    """Three layers of `backbone` on numbered tensors, and the key that each number stands for."""
    skeleton = copy.copy(backbone)
    skeleton._modules = dict(backbone._modules)
    skeleton.layers = nn.ModuleList(list(backbone.layers)[:LAYERS])
    # A deep copy with every tensor replaced by one that takes no memory.
    memo: dict[int, Any] = {id(t): _hollow(t) for t in _tensors(skeleton).values()}
    twin = copy.deepcopy(skeleton, memo)
    pack(twin)
    keys: list[str] = []
    for name, tensor in _tensors(twin).items():
        path, _, buffer = name.rpartition(".")
        form, _, part = _sources(twin, path).get(buffer, f"plain:{buffer}").partition(":")
        keys.append(f"{form}:{path}.{part}")
        numbered = _numbered(tensor, len(keys))
        if isinstance(tensor, nn.Parameter):
            numbered = nn.Parameter(numbered, requires_grad=False)
        setattr(twin.get_submodule(path), buffer, numbered)
    return twin, keys


def _sources(twin: nn.Module, path: str) -> dict[str, str]:
    return getattr(twin.get_submodule(path), "sources", {})


def _hollow(tensor: torch.Tensor) -> torch.Tensor:
    zeros = torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)
    return nn.Parameter(zeros, requires_grad=False) if isinstance(tensor, nn.Parameter) else zeros


def _numbered(tensor: torch.Tensor, number: int) -> torch.Tensor:
    """Zeros like `tensor` that begin with `number`: exact in half precision, two bytes of uint8."""
    numbered = torch.zeros(tensor.shape, dtype=tensor.dtype)
    digits = [number & 255, number >> 8] if tensor.dtype == torch.uint8 else [number]
    numbered.view(-1)[: len(digits)] = torch.tensor(digits, dtype=tensor.dtype)
    return numbered


def _number_in(constant: np.ndarray) -> int:
    """The number that `_numbered` put into the tensor that became `constant`."""
    flat = constant.reshape(-1)
    if flat.dtype == np.uint8:
        return int(flat[0]) + (int(flat[1]) << 8)
    return int(flat[0])


def _name_constants(program: Program, keys: list[str]) -> None:
    """Key each constant of the program by what it holds, `form:tensor`, and drop its data."""
    graph = program.vulkan
    named = list(graph.constants)
    for value_id, value in enumerate(graph.values):
        if isinstance(value, Tensor) and value.constant is not None:
            number = _number_in(graph.constant(value_id))
            if not 1 <= number <= len(keys):
                raise IrregularGraph(f"a constant of shape {list(value.shape)} came from nowhere")
            named[value.constant] = Constant(
                graph.constants[value.constant].nbytes, keys[number - 1]
            )
    graph.constants = named
