"""Whether the calls of a program have several lengths."""

from quatrain.program.container import Program
from quatrain.program.delegate_call import takes_varying_sizes
from quatrain.program.vulkan.graph import VulkanGraph


def takes_calls_of_any_length(program: Program, graph: VulkanGraph) -> bool:
    """Whether the sizes of its tensors change with the call: a decode step has one row. The runtime
    computes such calls whether or not the partitioner was told of them."""
    return any(operator.kind == "sym_size" for operator in graph.operators) or any(
        any(delegate.compile_specs.get("require_dynamic_shapes", b""))
        or takes_varying_sizes(program.root, program.methods, index)
        for index, delegate in enumerate(program.delegates)
        if delegate.graph is graph
    )
