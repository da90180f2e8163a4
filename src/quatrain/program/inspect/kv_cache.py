"""The keys and values that a program keeps between calls, and their type."""

from dataclasses import dataclass
from math import prod

from quatrain.program.container import Program
from quatrain.program.inspect.sizes import cache_values
from quatrain.program.plan.method_steps import CACHE_ARGUMENTS
from quatrain.program.vulkan.graph import VulkanGraph
from quatrain.program.vulkan.operator_schemas import operator_kind

# ExecuTorch's ScalarType -> its name, and bytes.
_TYPES = {1: ("int8", 1), 5: ("float16", 2), 6: ("float32", 4), 15: ("bfloat16", 2)}
_SIZES = dict(_TYPES.values())


@dataclass(frozen=True)
class KvCache:
    """All caches of a program, and what short convolutions keep beside them.

    `dtype`: of most of it. `bytes`: in memory, with the scales and zero points of an int8 cache.
    """

    dtype: str
    bytes: int


def find_kv_cache(program: Program, graphs: list[VulkanGraph]) -> KvCache | None:
    """The cache of a program whose Vulkan delegates are `graphs`, each with its own; None if there
    is no cache."""
    inside = [each for graph in graphs for each in _in_delegate(graph)]
    tensors = inside if graphs else _outside_delegates(program)
    nbytes: dict[str, int] = {}
    for dtype, elements in tensors:
        nbytes[dtype] = nbytes.get(dtype, 0) + elements * _SIZES.get(dtype, 4)
    if not nbytes:
        return None
    return KvCache(max(nbytes, key=lambda dtype: nbytes[dtype]), sum(nbytes.values()))


def _in_delegate(graph: VulkanGraph) -> list[tuple[str, int]]:
    """(type, number of elements) of each cache."""
    tensors = [graph.tensor(i) for i in cache_values(graph)]
    return [(tensor.dtype, prod(tensor.shape)) for tensor in tensors]


def _outside_delegates(program: Program) -> list[tuple[str, int]]:
    plans = {plan.name: plan for plan in program.root.execution_plan or ()}
    if "forward" not in plans:
        return []
    written = {
        step.args[place]
        for step in program.methods["forward"].instructions
        if step.kind == "kernel"
        for place in CACHE_ARGUMENTS.get(operator_kind(str(step.target)), ())
        if place < len(step.args)
    }
    values = [plans["forward"].values[i].val for i in sorted(written)]
    tensors = [value for value in values if value is not None and value.table == "Tensor"]
    return [
        (_TYPES.get(tensor.scalar_type, ("other", 4))[0], prod(tensor.sizes)) for tensor in tensors
    ]
