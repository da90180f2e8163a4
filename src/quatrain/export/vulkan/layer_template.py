"""The Vulkan program of three layers, each constant known by the tensor it came from.

Each tensor of the twin holds nothing but a number, which says in the lowered graph which tensor
a constant was. One template serves both schemes: 8da4w is lowered, and weight-only is the same
graph without the activations' quantization (`program.retarget`).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from quatrain.backbone.model import Backbone
from quatrain.export.template import cached_template, source_of, tensors_of, untouched_zeros
from quatrain.int4 import Scheme
from quatrain.linear import Int8DynActInt4WeightLinear, WeightOnlyInt4Linear
from quatrain.program import Constant, Program, Tensor, open_program
from quatrain.program.edit.irregular import IrregularGraph
from quatrain.program.edit.retarget import retarget
from quatrain.quiet import quiet
from quatrain.stages import Stages


def vulkan_template(
    backbone: Backbone, compile_options: dict[str, Any], metadata: dict[str, Any], stages: Stages
) -> Program:
    """The template for `backbone`, whose parts are Vulkan operators already, in its scheme.

    Raises `IrregularGraph` where a constant of the lowered program cannot be told, or where the
    layers do not allow for one.
    """

    def make(twin: Backbone, path: Path) -> None:
        with stages("import the compiler"), quiet():
            from quatrain.export.vulkan.lowering import write_lowered
            from quatrain.export.vulkan.packed_layers import pack_layers
        pack_layers(twin, dynamic=True)
        keys = _number_tensors(twin)
        write_lowered(twin, compile_options, metadata, path, stages)
        with stages("name its constants"):
            program = open_program(path)
            _name_constants(program, keys)
            program.write(path)

    structure = str(backbone).replace(
        WeightOnlyInt4Linear.__name__, Int8DynActInt4WeightLinear.__name__
    )
    settings = {
        "backend": "vulkan",
        "compile options": compile_options,
        "metadata": metadata,
        "structure": structure,
    }
    template = open_program(cached_template(backbone, settings, make))
    if any(isinstance(part, WeightOnlyInt4Linear) for part in backbone.modules()):
        retarget(template, Scheme.WEIGHT_ONLY)
    return template


def _number_tensors(twin: Backbone) -> list[str]:
    """Number the tensors of `twin`; what tensor `number - 1` is made of."""
    keys: list[str] = []
    for name, tensor in tensors_of(twin).items():
        path, _, buffer = name.rpartition(".")
        keys.append(source_of(twin, name))
        numbered = _numbered(tensor, len(keys))
        if isinstance(tensor, nn.Parameter):
            numbered = nn.Parameter(numbered, requires_grad=False)
        setattr(twin.get_submodule(path), buffer, numbered)
    return keys


def _numbered(tensor: torch.Tensor, number: int) -> torch.Tensor:
    """Zeros like `tensor` that begin with `number`: exact in half precision, two bytes of uint8."""
    numbered = untouched_zeros(tensor)
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
