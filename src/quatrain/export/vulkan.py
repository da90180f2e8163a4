"""A backbone as one Vulkan delegate."""

from pathlib import Path
from typing import Any

from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.exir.program import ExecutorchProgramManager

from quatrain.backbone.model import Backbone
from quatrain.export.lowering import EDGE_CONFIG, EXECUTORCH_CONFIG, quiet, trace
from quatrain.export.options import ActivationDtype
from quatrain.stages import Stages


def lower_to_vulkan(
    backbone: Backbone,
    activation_dtype: ActivationDtype,
    metadata: dict[str, Any],
    stages: Stages,
) -> ExecutorchProgramManager:
    """Trace and lower every layer of `backbone`, whose parts are Vulkan operators already.

    With "fp16" the delegate computes and stores in half precision; the program's inputs and
    outputs stay float32.
    """
    with stages("trace"):
        program = trace(backbone)
    with stages("lower to Vulkan"), quiet():
        partitioner = VulkanPartitioner({"force_fp16": activation_dtype == "fp16"})
        edge = to_edge_transform_and_lower(
            program,
            partitioner=[partitioner],
            compile_config=EDGE_CONFIG,
            constant_methods=metadata,
        )
        return edge.to_executorch(EXECUTORCH_CONFIG)


def write_vulkan_program(
    backbone: Backbone,
    activation_dtype: ActivationDtype,
    metadata: dict[str, Any],
    path: Path,
    stages: Stages,
) -> None:
    """Lower `backbone` layer by layer and write it: the long way, for any backbone."""
    manager = lower_to_vulkan(backbone, activation_dtype, metadata, stages)
    with stages("write"), path.open("wb") as file:
        manager.write_to_file(file)
