"""Triggers of what a program lays into memory wrongly."""

from quatrain.program import Program, VulkanGraph
from quatrain.program.inspect.shared_memory import overlaps
from quatrain.targets.triggers.occurrence import Occurrence, Where, tensor_text


def memory_still_read(program: Program, graph: VulkanGraph, where: Where) -> list[Occurrence]:
    """Values written into the memory of others that are still to be read."""
    return [
        Occurrence(
            f"value {second}, {tensor_text(graph, second)}, is written over value {first}, "
            f"{tensor_text(graph, first)}"
        )
        for first, second in overlaps(graph)
    ]
