"""Writes a Vulkan program from a template, a program of three layers; weights go directly into the
file.

Each tensor that the template is lowered from holds only a number, which says in the lowered graph
which tensor a constant was. One template serves both schemes: 8da4w is lowered, and weight-only is
the same graph without the activations' quantization (`program.edit.retarget`).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from quatrain.backbone.model import Backbone
from quatrain.export.template.constants import (
    PACKING,
    constant_bytes,
    source_of,
    store_constants,
    tensors_of,
)
from quatrain.export.template.template import cached_template, replace_tensor, untouched_zeros
from quatrain.int4 import Scheme
from quatrain.program import Constant, Program, Tensor, VulkanGraph, open_program, write_program
from quatrain.program.edit.constant_source import ConstantSource, Form
from quatrain.program.edit.replicated_layers import IrregularGraph, replicate_layers
from quatrain.program.edit.retarget import retarget
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS
from quatrain.quiet import quiet
from quatrain.stages import Stages


def write_vulkan_program_from_template(
    backbone: Backbone,
    scheme: Scheme,
    compile_options: dict[str, Any],
    metadata: dict[str, Any],
    path: Path,
    stages: Stages,
) -> None:
    """Write the program of `backbone`, whose parts are Vulkan operators already.

    Raises `IrregularGraph` if its layers are not copies of each other, before anything is written.
    """
    template = _vulkan_template(backbone, scheme, compile_options, metadata, stages)
    with stages("replicate the layers"):
        graph = replicate_layers(template.vulkan, len(backbone.layers))
        template.delegates[0].graph = graph
    with stages(PACKING) as advance:
        tensors = tensors_of(backbone)
        shapes = _shapes(graph)
        groups = _group_sizes(graph)

        def lay_out(index: int) -> bytes:
            source = ConstantSource.from_key(graph.constants[index].key or "")
            if source.form == Form.DEQUANTIZED:
                embedding: Any = backbone.get_submodule(source.tensor.rpartition(".")[0])
                return constant_bytes(Form.PLAIN, embedding.dequantized_weight(), shapes[index])
            tensor = tensors[source.tensor]
            return constant_bytes(source.form, tensor, shapes[index], groups.get(index))

        order = range(len(graph.constants))
        graph.constants = store_constants(template, lay_out, order, advance)
    with stages("write"):
        write_program(template, path)


def _shapes(graph: VulkanGraph) -> dict[int, Tensor]:
    """A tensor of the graph for each constant, by its index."""
    return {
        value.constant: value
        for value in graph.values
        if isinstance(value, Tensor) and value.constant is not None
    }


def _group_sizes(graph: VulkanGraph) -> dict[int, int]:
    """The group size of each group-sum constant, by its index."""
    sizes = {}
    for operator in graph.operators:
        arguments = operator.named_args
        if operator.kind in INT4_LINEARS and "weight_sums" in arguments:
            sums = graph.tensor(arguments["weight_sums"])
            assert sums.constant is not None
            sizes[sums.constant] = graph.plain(arguments["group_size"])
    return sizes


def _vulkan_template(
    backbone: Backbone,
    scheme: Scheme,
    compile_options: dict[str, Any],
    metadata: dict[str, Any],
    stages: Stages,
) -> Program:
    """The template for `backbone`, whose parts are Vulkan operators already, in `scheme`.

    Raises `IrregularGraph` if a constant of the lowered program cannot be identified, or if the
    layers do not allow for one.
    """

    def make(placeholder: Backbone, path: Path) -> None:
        with stages("import the compiler"), quiet():
            from quatrain.export.vulkan.lowering import write_vulkan_program
            from quatrain.export.vulkan.packed_layers import pack_layers
        pack_layers(placeholder, compile_options, dynamic=True)
        sources = number_tensors(placeholder)
        write_vulkan_program(placeholder, compile_options, metadata, path, stages)
        with stages("name its constants"):
            program = open_program(path)
            _name_constants(program, sources)
            write_program(program, path)

    settings = {"backend": "vulkan", "compile options": compile_options, "metadata": metadata}
    template = open_program(cached_template(backbone, Scheme.DYNAMIC_INT8, settings, make))
    if scheme == Scheme.WEIGHT_ONLY:
        retarget(template, scheme)
    return template


def number_tensors(placeholder: Backbone) -> list[ConstantSource]:
    """Number the tensors of `placeholder` from 1, and return the source of each in this order."""
    # The smallest first: they can only hold small numbers.
    tensors = sorted(tensors_of(placeholder).items(), key=lambda item: item[1].numel())
    sources = []
    for name, tensor in tensors:
        sources.append(source_of(placeholder, name))
        replacement = numbered(tensor, len(sources))
        if replacement is None:
            raise IrregularGraph(f"{name} has too few elements for the number {len(sources)}")
        replace_tensor(placeholder, name, replacement)
    return sources


def _name_constants(program: Program, sources: list[ConstantSource]) -> None:
    """Key each constant of the program by its source, and drop its data."""
    graph = program.vulkan
    named = list(graph.constants)
    for value_id, value in enumerate(graph.values):
        if isinstance(value, Tensor) and value.constant is not None:
            number = read_number(graph.constant(value_id))
            if number is None or number > len(sources):
                raise IrregularGraph(f"a constant of shape {list(value.shape)} has no known source")
            nbytes = graph.constants[value.constant].nbytes
            named[value.constant] = Constant(nbytes, sources[number - 1].key)
    graph.constants = named


# A number is written in digits from 1 to 127, one per element, the last digit first: they are exact
# in every dtype, also int8 and half precision. No digit is 0, so that a tensor whose elements were
# reordered among zeros does not represent another number.
_BASE = 127
_DIGITS = 3  # numbers up to 2 million


def numbered(like: torch.Tensor, number: int) -> torch.Tensor | None:
    """Zeros of the shape and dtype of `like` that begin with `number`, 1 or more; None if it has
    too few elements for it."""
    digits, rest = [], number - 1
    for _ in range(min(_DIGITS, like.numel())):
        digits.append(rest % _BASE + 1)
        rest //= _BASE
    if rest:
        return None
    tensor = untouched_zeros(like)
    tensor.view(-1)[: len(digits)] = torch.tensor(digits, dtype=like.dtype)
    return tensor


def read_number(constant: np.ndarray) -> int | None:
    """The number that `numbered` put into the tensor that became `constant`; None for none."""
    digits = constant.reshape(-1)[:_DIGITS].tolist()
    if not digits or any(digit not in range(1, _BASE + 1) for digit in digits):
        return None
    return 1 + sum((int(digit) - 1) * _BASE**power for power, digit in enumerate(digits))
