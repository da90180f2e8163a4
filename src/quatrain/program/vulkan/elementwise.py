"""Operators that read each element only where they write it."""

from dataclasses import replace

from quatrain.program.vulkan.graph import Operator, VulkanGraph

_NAMES = (
    "add sub mul div minimum pow where eq ne ge gt le lt logical_and logical_or logical_not "
    "bitwise_and bitwise_or bitwise_not neg abs rsqrt sqrt exp log10 sin cos tanh relu silu "
    "sigmoid round hardswish gelu leaky_relu hardshrink clamp hardtanh clone _to_copy alias_copy"
)
ELEMENTWISE = {f"aten.{name}" for name in _NAMES.split()}
# Of these the runtime computes two tensors, or a tensor and a number.
_NAMES_OF_TWO = (
    "add sub mul div minimum pow eq lt le gt ge logical_and logical_or bitwise_and bitwise_or"
)
OF_TWO_TENSORS = tuple(f"aten.{name}" for name in _NAMES_OF_TWO.split())


def may_write_over(graph: VulkanGraph, operator: Operator, read: int) -> bool:
    """Whether `operator` may write its result into the memory of the value `read`: where it reads
    that element by element, and the result is of its shape, type, storage and layout."""
    if operator.kind not in ELEMENTWISE or read not in graph.inputs_of(operator):
        return False
    forms = {
        replace(graph.tensor(value), constant=None, mem_obj_id=None, staging_dtype="unset")
        for value in (read, operator.out)
    }
    return len(forms) == 1
