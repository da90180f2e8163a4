"""A backbone as one Vulkan delegate."""

from typing import Any

from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.exir.program import ExecutorchProgramManager

from quatrain.backbone.model import Backbone
from quatrain.export.lowering import EDGE_CONFIG, EXECUTORCH_CONFIG, quiet, trace
from quatrain.export.operators import to_vulkan_operators
from quatrain.export.options import ActivationDtype
from quatrain.stages import Stages


def lower_to_vulkan(
    backbone: Backbone,
    activation_dtype: ActivationDtype,
    metadata: dict[str, Any],
    stages: Stages,
) -> ExecutorchProgramManager:
    """Trace and lower the whole of `backbone`, which is used up by it.

    With "fp16" the delegate computes and stores in half precision; the program's inputs and
    outputs stay float32.
    """
    with stages("trace"):
        to_vulkan_operators(backbone)
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
