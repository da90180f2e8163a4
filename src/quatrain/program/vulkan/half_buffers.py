"""Finds operators that a phone computes entirely in float16: those whose result is a float16
buffer.

In textures of float16 it computes in float32 and rounds what it stores. Source:
`buffer_scalar_type` and `texel_load_type` of ExecuTorch's shader generator, `gen_vulkan_spv.py`.
"""

from quatrain.program.vulkan.graph import Operator, Tensor, VulkanGraph


def in_half_buffer(graph: VulkanGraph, operator: Operator) -> bool:
    """Whether the result of `operator`, or the first of several, is a buffer of float16."""
    results = [graph.values[value_id] for value_id in graph.outputs_of(operator)[:1]]
    return any(
        isinstance(out, Tensor) and (out.dtype, out.storage) == ("float16", "buffer")
        for out in results
    )
