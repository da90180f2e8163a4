"""The Vulkan program of three layers, each constant identified by the tensor it came from.

Each placeholder tensor holds only a number, which says in the lowered graph which tensor a constant
was. One template serves both schemes: 8da4w is lowered, and weight-only is the same graph without
the activations' quantization (`program.edit.retarget`).
"""

from pathlib import Path
from typing import Any

from quatrain.backbone.model import Backbone
from quatrain.export.template.constants import source_of, tensors_of
from quatrain.export.template.template import cached_template, replace_tensor
from quatrain.export.vulkan.numbered_tensors import numbered, read_number
from quatrain.int4 import Scheme
from quatrain.program import Constant, Program, Tensor, open_program, write_program
from quatrain.program.edit.constant_source import ConstantSource
from quatrain.program.edit.replicated_layers import IrregularGraph
from quatrain.program.edit.retarget import retarget
from quatrain.quiet import quiet
from quatrain.stages import Stages


def vulkan_template(
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
        sources = _number_tensors(placeholder)
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


def _number_tensors(placeholder: Backbone) -> list[ConstantSource]:
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
