"""What tells the Vulkan delegates of a program from each other."""

from collections import Counter

from quatrain.program.container import Program
from quatrain.program.vulkan.graph import VulkanGraph


def delegate_places(program: Program) -> list[tuple[str, VulkanGraph]]:
    """The graph of each Vulkan delegate, and what goes before a place in it: the method if there
    are several, and which delegate where a method has several; nothing of an only one."""
    found = [
        (index, each.method, each.graph)
        for index, each in enumerate(program.delegates)
        if each.graph
    ]
    methods = Counter(method for _, method, _ in found)
    return [
        (
            (f"{method}: " if len(methods) > 1 else "")
            + (f"delegate {index}, " if methods[method] > 1 else ""),
            graph,
        )
        for index, method, graph in found
    ]
