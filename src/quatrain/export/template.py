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
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quatrain.backbone.model import Backbone
from quatrain.export.options import ActivationDtype
from quatrain.export.stamp import IrregularGraph
from quatrain.files import whole_file
from quatrain.program import Constant, Operator, Program, Tensor, open_program
from quatrain.stages import Stages

LAYERS = 3  # the first, the last, and one between to copy
_DIGITS = 8  # of a tensor's number, in base 8: what the first int4 values of a row can hold


def template_for(
    backbone: Backbone,
    activation_dtype: ActivationDtype,
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
    path = _cache_folder() / f"{_fingerprint(backbone, activation_dtype, metadata)}.pte"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as temporary:
            _make(backbone, activation_dtype, metadata, temporary, stages)
    return path


def _make(
    backbone: Backbone,
    activation_dtype: ActivationDtype,
    metadata: dict[str, Any],
    path: Path,
    stages: Stages,
) -> None:
    with stages("import the compiler"):
        from quatrain.export.vulkan import lower_to_vulkan

    twin, names = _twin(backbone)
    manager = lower_to_vulkan(twin, activation_dtype, metadata, stages)
    with stages("name its constants"):
        with path.open("wb") as file:
            manager.write_to_file(file)
        program = open_program(path)
        _name_constants(program, names)
        program.write(path)


def _cache_folder() -> Path:
    root = os.environ.get("QUATRAIN_CACHE")
    if root is None:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quatrain"
    return Path(root) / "templates"


def _fingerprint(backbone: Backbone, dtype: ActivationDtype, metadata: dict[str, Any]) -> str:
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
        backbone.config.to_params(), tensors, str(backbone), dtype, metadata, versions,
        code.hexdigest(),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def backbone_tensors(backbone: Backbone) -> dict[str, torch.Tensor]:
    """Every tensor of `backbone` under the name that a template's constants use."""
    return _tensors(backbone)


def _twin(backbone: Backbone) -> tuple[Backbone, dict[int, str]]:
    """Three layers of `backbone` on numbered tensors, and the name that each number stands for."""
    skeleton = copy.copy(backbone)
    skeleton._modules = dict(backbone._modules)
    skeleton.layers = nn.ModuleList(list(backbone.layers)[:LAYERS])
    memo: dict[int, Any] = {}
    names = {}
    for number, (name, tensor) in enumerate(_tensors(skeleton).items(), start=1):
        numbered = _numbered(tensor, number)
        if isinstance(tensor, nn.Parameter):
            numbered = nn.Parameter(numbered, requires_grad=False)
        memo[id(tensor)] = numbered
        names[number] = name
    return copy.deepcopy(skeleton, memo), names


def _numbered(tensor: torch.Tensor, number: int) -> torch.Tensor:
    """Zeros like `tensor` with `number` at the beginning, in a form that packing keeps."""
    numbered = torch.zeros(tensor.shape, dtype=tensor.dtype)
    if tensor.dtype == torch.int8:
        numbered.view(-1)[:_DIGITS] = torch.tensor(
            [number >> 3 * digit & 7 for digit in range(_DIGITS)], dtype=torch.int8
        )
    else:
        numbered.view(-1)[0] = number
    return numbered


def _name_constants(program: Program, names: dict[int, str]) -> None:
    """Key each constant of the program by what it holds: `form:tensor`; drop their data."""
    graph = program.vulkan
    keys: dict[int, str] = {}
    for operator in graph.operators:
        arguments = operator.named_args
        for argument, value_id in arguments.items():
            value = graph.values[value_id]
            if isinstance(value, Tensor) and value.constant is not None:
                source = arguments["weights"] if argument == "weight_sums" else value_id
                name = names.get(_number_in(program, source))
                if name is None:
                    raise IrregularGraph(f"a constant of {operator.name} has an unknown source")
                keys[value.constant] = f"{_form(operator, argument, value)}:{name}"
    if len(keys) != len(graph.constants):
        raise IrregularGraph(f"{len(graph.constants) - len(keys)} constants are used by nothing")
    graph.constants = [
        Constant(constant.nbytes, keys[index]) for index, constant in enumerate(graph.constants)
    ]


def _form(operator: Operator, argument: str, value: Tensor) -> str:
    if argument == "weight_sums":
        return "sums"
    if value.dtype == "uint8":
        return "packed"
    linear = operator.kind in ("et_vk.linear_q4gsw", "et_vk.linear_dq8ca_q4gsw")
    return "transposed" if linear and argument == "weight_scales" else "plain"


def _number_in(program: Program, value_id: int) -> int:
    """The number that `_numbered` put into the tensor this constant was made of."""
    flat = program.vulkan.constant(value_id).reshape(-1)
    if flat.dtype == "uint8":
        # Two int4 values plus 8 in a byte, the even column in the low half.
        halves = [
            half - 8 for byte in flat[: _DIGITS // 2].tolist() for half in (byte & 15, byte >> 4)
        ]
        return sum(digit << 3 * place for place, digit in enumerate(halves))
    return int(flat[0])
