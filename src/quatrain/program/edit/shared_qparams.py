"""Chooses the quantization parameters of an activation once for all linears that read it.

ExecuTorch's exporter asks for them once per linear. Query, key and value read one activation, gate
and up another: of a layer's seven `choose_qparams` four are distinct.
"""

from dataclasses import replace
from typing import Any

from quatrain.program.edit.compact import remove_unread
from quatrain.program.vulkan.graph import Operator, Plain, VulkanGraph
from quatrain.program.vulkan.linear_kernels import CHOOSE_QPARAMS
from quatrain.program.vulkan.memory import assign_memory


def share_qparams(graph: VulkanGraph) -> None:
    """Let every linear of `graph` use the first of the equal `choose_qparams` of its input."""
    first: dict[Any, tuple[int, ...]] = {}
    substitute: dict[int, int] = {}
    for operator in graph.operators:
        if operator.kind == CHOOSE_QPARAMS:
            outputs = graph.outputs_of(operator)
            kept = first.setdefault(_key(graph, operator), outputs)
            substitute.update(zip(outputs, kept, strict=True))
    shared = {kept for value, kept in substitute.items() if value != kept}
    if not shared:
        return
    graph.operators = [
        operator
        if operator.kind == CHOOSE_QPARAMS
        else replace(operator, args=tuple(substitute.get(i, i) for i in operator.args))
        for operator in graph.operators
    ]
    remove_unread(graph, CHOOSE_QPARAMS)
    assign_memory(graph, sorted(shared))  # they live longer now; what they shared may be in use


def _key(graph: VulkanGraph, operator: Operator) -> Any:
    """What two `choose_qparams` must have in common to give the same result."""
    settings = tuple(graph.values[i] for i in operator.args[1:-1])
    outputs = tuple(replace(graph.tensor(i), mem_obj_id=None) for i in graph.outputs_of(operator))
    fixed = all(isinstance(value, Plain) for value in settings)
    return (operator.args[0], settings, outputs) if fixed else id(operator)
