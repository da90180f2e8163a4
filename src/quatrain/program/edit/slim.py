"""Removes what a program computes or stores more than once, and nothing else.

Three things are safe, and keep logits bit for bit: choosing the quantization parameters of one
activation once for all linears that read it, storing equal constants once, and leaving out
constants that nothing refers to. What is not done, and why, stands in docs/formats.md: KV caches
stay constants of their full size, since the runtime fills a cache by copying that many bytes
from the constant.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

from quatrain.program.container import Program
from quatrain.program.edit.compact import compact, remove_unread
from quatrain.program.graph import Constant, Operator, Plain, VulkanGraph
from quatrain.program.inspect.sizes import unused_keys
from quatrain.program.linear_kernels import CHOOSE_QPARAMS
from quatrain.program.memory import assign_memory


@dataclass(frozen=True)
class Slimmed:
    """What `slim` removed: operators, and bytes of constants stored twice or never used."""

    operators: int
    constant_bytes: int


def slim(program: Program) -> Slimmed:
    """Slim `program` in place; says what went. See the module's docstring for what it does."""
    graph = program.vulkan
    before = len(graph.operators)
    unused = unused_keys(program)
    saved = sum(len(program.named_bytes(key)) for key in unused)
    program.dropped_keys.update(unused)
    _share_qparams(graph)
    saved += _share_constants(program, graph)
    compact(graph)
    return Slimmed(before - len(graph.operators), saved)


def _share_qparams(graph: VulkanGraph) -> None:
    """Let every linear use the first of the equal `choose_qparams` of its input."""
    first: dict[Any, tuple[int, ...]] = {}
    substitute: dict[int, int] = {}
    for operator in graph.operators:
        if operator.kind == CHOOSE_QPARAMS:
            outputs = graph.outputs_of(operator)
            kept = first.setdefault(_qparams_key(graph, operator), outputs)
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


def _qparams_key(graph: VulkanGraph, operator: Operator) -> Any:
    """What two `choose_qparams` must have in common to give the same result."""
    settings = tuple(graph.values[i] for i in operator.args[1:-1])
    outputs = tuple(replace(graph.tensor(i), mem_obj_id=None) for i in graph.outputs_of(operator))
    fixed = all(isinstance(value, Plain) for value in settings)
    return (operator.args[0], settings, outputs) if fixed else id(operator)


def _share_constants(program: Program, graph: VulkanGraph) -> int:
    """Point equal constants of equal size to one segment of the file; the bytes saved.

    Values stay apart, each with its own constant: a runtime before 1.3 frees a constant after
    its first prepack (PR 18906), which is safe only while no two prepacks share a value.
    """
    by_size: dict[int, list[Constant]] = {}
    for constant in filter(program.holds, graph.constants):
        if constant not in by_size.setdefault(constant.nbytes, []):
            by_size[constant.nbytes].append(constant)
    same: dict[Constant, Constant] = {}
    for constants in by_size.values():
        if len(constants) > 1:
            kept: dict[bytes, Constant] = {}
            for constant in constants:
                same[constant] = kept.setdefault(_digest(program, graph, constant), constant)
    graph.constants = [same.get(constant, constant) for constant in graph.constants]
    return sum(c.nbytes for c, keeper in same.items() if c != keeper and c.key is not None)


def _digest(program: Program, graph: VulkanGraph, constant: Constant) -> bytes:
    digest = hashlib.sha256(graph.fetch(constant)).digest()
    program.release_memory()
    return digest
