"""Removes what a program computes or stores more than once, and nothing else.

Safe, and keeping logits bit for bit, are: choosing the quantization parameters of one activation
once for all linears that read it, and not in decode; removing copies that change nothing;
normalizing only the last token if no other is read; storing equal constants once; and removing
unused constants. docs/formats.md says what is not done, and why: KV caches stay constants of their
full size, since the runtime fills a cache by copying that many bytes from the constant.
"""

import hashlib
from dataclasses import dataclass

from quatrain.program.container import Program
from quatrain.program.edit.compact import compact
from quatrain.program.edit.fewer_dispatches import reduce_dispatches
from quatrain.program.edit.prefill_qparams import qparams_slices
from quatrain.program.inspect.sizes import unused_keys
from quatrain.program.vulkan.graph import Constant, VulkanGraph


@dataclass(frozen=True)
class Slimmed:
    """What `slim` removed: operators, and bytes of constants stored twice or never used."""

    operators: int
    constant_bytes: int


def slim(program: Program) -> Slimmed:
    """Slim `program` in place; says what went. See the module's docstring for what it does."""
    unused = unused_keys(program)
    saved = sum(len(program.named_bytes(key)) for key in unused)
    program.dropped_keys.update(unused)
    removed = 0
    for graph in program.require_graphs():
        before = _computing(graph)
        reduce_dispatches(graph)
        saved += _share_constants(program, graph)
        compact(graph)
        removed += before - _computing(graph)
    return Slimmed(removed, saved)


def _computing(graph: VulkanGraph) -> int:
    """How many operators compute: not those that leave out `choose_qparams` in decode."""
    slices = len(qparams_slices(graph))
    return sum(op.kind not in ("add", "sub", "floordiv") for op in graph.operators) - slices


def _share_constants(program: Program, graph: VulkanGraph) -> int:
    """Point equal constants of equal size to one segment of the file; the bytes saved.

    Values stay apart, each with its own constant: a runtime before 1.3 frees a constant after
    its first prepack (PR 18906), which is safe only while no two prepacks share a value.
    """
    by_size: dict[int, list[Constant]] = {}
    for constant in dict.fromkeys(filter(program.holds, graph.constants)):
        by_size.setdefault(constant.nbytes, []).append(constant)
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
