"""Counts a program's bytes by kind, and those that are not needed."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from quatrain.program.container import Program
from quatrain.program.inspect.linears import Linear
from quatrain.program.plan.method_steps import CACHE_ARGUMENTS
from quatrain.program.vulkan.graph import Constant, Plain, Tensor, VulkanGraph
from quatrain.program.vulkan.packed_weights import dequantized_rows

_EMBEDDINGS = ("aten.embedding", "et_vk.embedding_q4gsw")
_LINEAR_PARTS = {
    "weights": "weights", "b": "weights", "weight_scales": "scales",
    "weight_sums": "group sums", "bias": "bias",
}  # fmt: skip


Part = tuple[VulkanGraph, list[Linear]]  # of a program: a delegate, and its linears


@dataclass(frozen=True)
class Waste:
    """Bytes that are stored without need: what, how many, and what would help."""

    what: str
    bytes: int
    remedy: str


def cache_values(graph: VulkanGraph) -> list[int]:
    """The value ids of the KV caches that start as constants."""
    found = []
    laid_out = {op.out: op.args[0] for op in graph.operators if op.kind == "et_vk.prepack"}
    for operator in graph.operators:
        for place in CACHE_ARGUMENTS.get(operator.kind, ()):
            if place >= len(operator.args):
                continue
            value_id: int = operator.args[place]
            value_id = laid_out.get(value_id, value_id)
            if graph.stored(value_id):
                found.append(value_id)
    return list(dict.fromkeys(found))


def keeps_windows(graph: VulkanGraph) -> bool:
    """Whether a KV cache, or the state of a convolution, holds only the last tokens and is
    rewritten by each call, so that a call must continue the previous one or begin at position 0."""
    updates = (op for op in graph.operators if op.kind == "update_cache")
    return any(isinstance(graph.values[op.args[2]], Plain) for op in updates)


def bytes_by_kind(program: Program, parts: list[Part]) -> dict[str, int]:
    """Every byte of the file by its purpose, largest first; the sum is the file's size.

    A constant that several values share counts once, for the first of its uses. Bytes that belong
    to none of `parts` are listed by their backend.
    """
    sizes: dict[str, int] = defaultdict(int)
    counted: set[int] = set()
    inline = 0
    for graph, linears in parts:
        for constant, kind in _constant_kinds(graph, linears).items():
            segment = program.segment_of(constant)
            if segment is None and program.holds(constant):
                sizes[kind] += constant.nbytes
                inline += constant.nbytes
            elif segment is not None and segment not in counted:
                sizes[kind] += program.segment_range(segment)[1]
                counted.add(segment)
    others = [delegate for delegate in program.delegates if delegate.graph is None]
    hidden = " and ".join(sorted({delegate.backend for delegate in others}))
    named = set(program.named_segments)
    for index in range(len(program.root.segments or ())):
        if index not in counted and index not in program.delegate_segments:
            kind = "constants outside the delegates"
            if index in named:
                kind = f"weights of {hidden}" if hidden else "not used by a delegate"
            sizes[kind] += program.segment_range(index)[1]
    hidden_segments = {d.record.processed.index for d in others if program.in_segment(d)}
    unread, blobs = (
        sum(program.segment_range(index)[1] for index in segments)
        for segments in (hidden_segments, program.delegate_segments)
    )
    sizes[f"{hidden} delegates"] += unread
    sizes["graph"] += blobs - unread - inline + len(program.flatbuffer)
    sizes["padding"] += len(program.data) - sum(sizes.values())
    ordered = sorted(sizes.items(), key=lambda item: -item[1])
    return {kind: size for kind, size in ordered if size > 0}


def _constant_kinds(graph: VulkanGraph, linears: list[Linear]) -> dict[Constant, str]:
    """What each constant is for, by the operator that reads it."""
    by_operator = {linear.operator: linear for linear in linears}
    caches = set(cache_values(graph))
    kinds: dict[Constant, str] = {}
    for index, operator in enumerate(graph.operators):
        for name, value_id in operator.named_args.items():
            stored = graph.stored(value_id)
            if stored is None:
                continue
            kind = "other"
            if value_id in caches:
                kind = "KV cache"
            elif operator.kind in _EMBEDDINGS:
                kind = "embedding"
            elif index in by_operator:
                kind = _linear_kind(by_operator[index], name)
            elif operator.kind in ("et_vk.rms_norm", "aten.native_layer_norm"):
                kind = "norms"
            kinds.setdefault(stored, kind)
    for constant in graph.constants:
        kinds.setdefault(constant, "other")
    return kinds


def _linear_kind(linear: Linear, argument: str) -> str:
    part = _LINEAR_PARTS.get(argument, "weights")
    if linear.role == "output":
        return "output layer"
    if linear.group_size is None:
        return f"linears, {linear.scheme}"
    return f"int4 {part}"


def find_waste(program: Program, parts: list[Part]) -> list[Waste]:
    """The bytes that `program` could do without, by reason."""
    found = [_stored_twice(program), _unused_data(program)]
    for graph, linears in parts:
        found.append(_tied_embedding(program, graph, linears))
        found.append(_zero_caches(program, graph))
        found.append(_wide_constants(graph))
    return [waste for waste in dict.fromkeys(found) if waste.bytes > 0]


def _tied_embedding(program: Program, graph: VulkanGraph, linears: list[Linear]) -> Waste:
    """A floating-point embedding of which the int4 output layer is a second copy."""
    embedding = next((op for op in graph.operators if op.kind == "aten.embedding"), None)
    output = next((lin for lin in linears if lin.role == "output" and lin.group_size), None)
    total = 0
    if embedding is not None and output is not None:
        names = graph.operators[output.operator].named_args
        ids = (embedding.named_args["weights"], names["weights"], names["weight_scales"])
        if all(is_held(program, graph, i) for i in ids):
            table, weights, scales = (graph.constant(i) for i in ids)
            total = table.nbytes if _same_rows(table, weights, scales) else 0
            program.release_memory()
    return Waste(
        "a floating-point embedding beside the same matrix in the int4 output layer",
        total,
        "quatrain quantize --embedding int4, then export again",
    )


def is_held(program: Program, graph: VulkanGraph, value_id: int) -> bool:
    """Whether the value is a constant whose bytes are in the file, not in a `.ptd` beside it."""
    stored = graph.stored(value_id)
    return stored is not None and program.holds(stored)


def _same_rows(table: np.ndarray, weights: np.ndarray, scales: np.ndarray) -> bool:
    """Whether the first rows of both are alike, up to what rounding to int4 costs."""
    shaped = table.ndim == weights.ndim == scales.ndim == 2 and 0 not in scales.shape
    if not shaped or table.shape != (weights.shape[0], 2 * weights.shape[1]):
        return False
    if table.shape[1] % scales.shape[0] or scales.shape[1] < table.shape[0]:
        return False
    sample = slice(0, 64)
    first = table[sample].astype(np.float64)
    error = np.linalg.norm(dequantized_rows(weights, scales, sample) - first)
    return bool(error < 0.3 * np.linalg.norm(first))


def _zero_caches(program: Program, graph: VulkanGraph) -> Waste:
    caches = {graph.constants[graph.tensor(i).constant or 0]: i for i in cache_values(graph)}
    zero = [c for c, i in caches.items() if program.holds(c) and _is_zero(program, graph, i)]
    return Waste(
        "KV caches stored as zeros",
        sum(constant.nbytes for constant in zero),
        "none that every runtime accepts; see docs/formats.md",
    )


def _is_zero(program: Program, graph: VulkanGraph, value_id: int) -> bool:
    zero = not np.any(graph.constant(value_id))
    program.release_memory()
    return zero


def _stored_twice(program: Program) -> Waste:
    """Segments with equal content; only those of equal size are read."""
    by_size: dict[int, list[int]] = defaultdict(list)
    for index in sorted(set(program.named_segments)):
        by_size[program.segment_range(index)[1]].append(index)
    total = 0
    for size, indices in by_size.items():
        if len(indices) > 1 and size:
            # The first bytes tell most of them apart without reading all.
            heads = defaultdict(list)
            for index in indices:
                heads[bytes(program.segment(index)[:4096])].append(index)
            alike = [group for group in heads.values() if len(group) > 1]
            for group in alike:
                digests = {hashlib.sha256(program.segment(i)).digest() for i in group}
                total += size * (len(group) - len(digests))
                program.release_memory()
    return Waste("constants stored more than once", total, "quatrain retarget --slim")


def _wide_constants(graph: VulkanGraph) -> Waste:
    """float32 constants of a program that computes in float16: half of them is not needed."""
    computed = [v.dtype for v in graph.values if isinstance(v, Tensor) and v.constant is None]
    narrow = computed.count("float16") > computed.count("float32")
    wide = {
        graph.constants[v.constant]
        for v in graph.values
        if isinstance(v, Tensor) and v.constant is not None and v.dtype == "float32"
    }
    total = sum(constant.nbytes for constant in wide) // 2 if narrow else 0
    return Waste("float32 constants where float16 runs", total, "export --activation-dtype fp16")


def _unused_data(program: Program) -> Waste:
    total = sum(len(program.named_bytes(key)) for key in unused_keys(program))
    return Waste("constants that nothing uses", total, "quatrain retarget --slim")


def unused_keys(program: Program) -> list[str]:
    """The named data that no delegate refers to; none if a delegate cannot be read."""
    if len(program.graphs) < len(program.delegates):
        return []
    used = {constant.key for graph in program.graphs for constant in graph.constants}
    return [key for key in program.named_data if key not in used]
