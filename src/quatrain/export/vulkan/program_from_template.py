"""Writes a Vulkan program from its layer template; weights go directly into the file."""

from pathlib import Path
from typing import Any

from quatrain.backbone.model import Backbone
from quatrain.export.template.constants import PACKING, constant_bytes, store_constants, tensors_of
from quatrain.export.vulkan.layer_template import vulkan_template
from quatrain.int4 import Scheme
from quatrain.program import Tensor, VulkanGraph, write_program
from quatrain.program.edit.constant_source import ConstantSource, Form
from quatrain.program.edit.replicated_layers import replicate_layers
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS
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
    template = vulkan_template(backbone, scheme, compile_options, metadata, stages)
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
