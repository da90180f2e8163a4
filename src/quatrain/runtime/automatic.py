"""The rule by which `--device auto` chooses a runtime for a Vulkan program.

A real GPU if there is one; without one the reference where its weights fit in memory, else the
software GPU. Every command thus chooses alike, whatever else the machine does meanwhile.
"""

from typing import Literal

from quatrain.program import VulkanGraph
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS
from quatrain.stages import installed_memory_bytes

Runtime = Literal["gpu", "reference"]


def first_choice(graph: VulkanGraph) -> tuple[Runtime, str]:
    """The runtime to try first, and a phrase that says why it is not a real GPU (empty if it is
    one)."""
    from quatrain.runtime.wgpu.adapters import list_adapters

    adapters = list_adapters()
    if not adapters:
        return "reference", "no GPU adapter was found"
    if not adapters[0].is_cpu:
        return "gpu", ""
    if reference_fits(graph):
        return "reference", f"{adapters[0].name} computes on the CPU too"
    return "gpu", "the reference's float32 weights do not fit in memory"


def reference_fits(graph: VulkanGraph) -> bool:
    """Whether the reference's dense weights, 4 bytes each, take less than half of the memory."""
    packed = {
        operator.named_args["weights"]
        for operator in graph.operators
        if operator.kind in INT4_LINEARS
    }
    dense = sum(8 * graph.tensor(value_id).nbytes for value_id in packed)
    return dense < installed_memory_bytes() / 2
