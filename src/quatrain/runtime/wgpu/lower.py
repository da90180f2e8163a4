"""Turns a Vulkan graph, at given input shapes, into dispatches."""

from collections.abc import Mapping

import numpy as np

from quatrain.arithmetic import Arithmetic
from quatrain.program import Operator, VulkanGraph
from quatrain.runtime.defects import EmulatedDefect
from quatrain.runtime.operators.arguments import ignored_arguments, taken
from quatrain.runtime.operators.errors import computing
from quatrain.runtime.wgpu.dispatches.dispatch import Traits
from quatrain.runtime.wgpu.lowering import Lowered, Lowering
from quatrain.runtime.wgpu.operators.handlers import HANDLERS
from quatrain.runtime.wgpu.symbols import SYMBOL_KINDS, symbol_of


def lower(
    graph: VulkanGraph,
    operators: list[Operator],
    inputs: Mapping[int, np.ndarray],
    traits: Traits,
    fp16: bool,
    arithmetic: Arithmetic,
    defect: EmulatedDefect | None = None,
    join: bool = True,
) -> Lowered:
    """Dispatches for `operators` (the graph's, fused) at the shapes of `inputs`.

    `arithmetic`: of 8da4w linears. `defect`: one to emulate. Without `join`, each operator has
    dispatches of its own. Raises `InputError` for an operator that cannot be computed, such as one
    of a damaged program.
    """
    lowering = Lowering(graph, traits, fp16, inputs, arithmetic, defect, join)
    for operator in operators:
        with computing(operator.name):
            _lower(lowering, operator)
    lowering.operand(graph.outputs[0])  # which may be a constant that no operator reads
    return lowering.result


def _lower(to: Lowering, operator: Operator) -> None:
    """Add one operator."""
    if operator.kind in SYMBOL_KINDS:
        symbols = to.result.symbols
        shape = lambda value_id: to.operand(value_id).shape  # noqa: E731
        symbols[operator.out] = symbol_of(to.graph, operator, symbols, shape, to.inputs)
        return
    handler = HANDLERS[operator.kind]
    to.operator = operator
    made = handler(to, **taken(handler, operator)) or []
    to.result.dispatches += made
    to.result.origins += [operator] * len(made)


def unsupported(graph: VulkanGraph) -> list[str]:
    """The names of the operators, and of their arguments, that no kernel here computes."""
    operators = graph.operators
    known = {*HANDLERS, *SYMBOL_KINDS}
    unknown = sorted({op.name for op in operators if op.kind not in known})
    return unknown + ignored_arguments(graph, operators, HANDLERS)
