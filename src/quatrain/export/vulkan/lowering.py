"""Lowers a backbone as one Vulkan delegate."""

from pathlib import Path
from typing import Any

from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import to_edge

from quatrain.backbone.model import Backbone
from quatrain.export.lowering.compiler_shortcuts import compiler_shortcuts
from quatrain.export.lowering.executorch_internals import (
    edge_config,
    forget_constants,
    partitioner_takes_packed_layers,
    shapes_of_vulkan_operators,
)
from quatrain.export.lowering.remembered_results import results_remembered
from quatrain.export.lowering.tracing import EXECUTORCH_CONFIG, trace
from quatrain.export.vulkan.call_length import longest_call
from quatrain.program import open_program, write_program
from quatrain.program.edit.compact import compact
from quatrain.program.edit.embedding_layout import repair_program
from quatrain.program.edit.fewer_dispatches import reduce_dispatches
from quatrain.program.edit.resized_results import make_resized
from quatrain.quiet import quiet
from quatrain.stages import Stages


@compiler_shortcuts()
@results_remembered()
def write_vulkan_program(
    backbone: Backbone,
    compile_options: dict[str, Any],
    metadata: dict[str, Any],
    path: Path,
    stages: Stages,
) -> None:
    """Trace, lower and write every layer of `backbone`, whose parts are Vulkan operators already,
    its quantized layers packed (`pack_layers`).

    `compile_options` are those of ExecuTorch's Vulkan partitioner. With "force_fp16" the
    delegate computes and stores in half precision; the program's inputs and outputs stay float32.
    """
    with stages("trace"):
        program = trace(backbone, longest_call(backbone.config))
    with (
        stages("lower to Vulkan"),
        quiet(),
        shapes_of_vulkan_operators(),
        partitioner_takes_packed_layers(),
    ):
        edge = to_edge(program, constant_methods=metadata, compile_config=edge_config())
        delegated = edge.to_backend(VulkanPartitioner(compile_options))
        manager = delegated.to_executorch(EXECUTORCH_CONFIG)
    with stages("write"):
        with path.open("wb") as file:
            manager.write_to_file(file)
        forget_constants(manager)
        lowered = open_program(path)
        repair_program(lowered)
        for graph in lowered.graphs:
            make_resized(lowered, graph)
            reduce_dispatches(graph)
            compact(graph)
        write_program(lowered, path)
