"""Triggers of sums, means, extremes and variances: over dimensions that the runtime does not take,
and, with softmax, of rows that its shader leaves early.

Source: `Reduce.cpp`, `ArgReduce.cpp` and `Var.cpp` of ExecuTorch 1.5, each measured on its runtime.
"""

from collections.abc import Iterator

from quatrain.program import Operator, Program, Tensor, VulkanGraph
from quatrain.program.call_lengths import takes_calls_of_any_length
from quatrain.targets.triggers.occurrence import (
    PACKED_FROM_THE_END,
    Occurrence,
    Occurrences,
    fixed_value,
    tensors_of,
)

_SUMS = ("aten.mean", "aten.sum", "aten.amax", "aten.amin")
_PLACES = ("aten.argmax", "aten.argmin")
_OF_DIMENSIONS = (*_SUMS, *_PLACES, "aten.var")


def reduction(program: Program, graph: VulkanGraph) -> Occurrences:
    """Sums, means, extremes and softmax as operators of their own, in textures, where the rows of
    some call are not a multiple of the four that a group of the shader takes."""
    any_length = takes_calls_of_any_length(program, graph)
    for place, _, x, dims in _reductions(graph, (*_SUMS, "aten._softmax", "aten.var")):
        kept = [size for dim, size in enumerate(x.shape) if dim not in dims]
        if x.storage != "buffer" and (any_length or max(kept[-3:], default=1) % 4):
            yield Occurrence(f"{place}: of {list(x.shape)}")


def reductions_refused(graph: VulkanGraph) -> Occurrences:
    """Reductions over dimensions, or in a storage, that the runtime throws at."""
    return [
        Occurrence(f"{place}: of {list(x.shape)} along {list(dims)}, {problem}")
        for place, operator, x, dims in _reductions(graph, _OF_DIMENSIONS)
        if (problem := _refused(operator.kind, x, dims))
    ]


def reductions_shifted(program: Program, graph: VulkanGraph) -> Occurrences:
    """Results of a lower rank than what they are of, where a dimension is kept that comes before
    one that is left out, or calls may be of any length; variances of [N, C, H, W] along the
    channels in buffers, and of few rows in textures."""
    any_length = takes_calls_of_any_length(program, graph)
    for place, operator, x, dims in _reductions(graph, _OF_DIMENSIONS):
        out = graph.values[operator.out]
        of_channels = operator.kind == "aten.var" and x.storage == "buffer" and len(x.shape) == 4
        if of_channels and 1 in dims:
            yield Occurrence(f"{place}: of {list(x.shape)} along {list(dims)}, in a buffer")
            continue
        if operator.kind == "aten.var" and x.storage != "buffer" and any_length:
            yield Occurrence(f"{place}: of {list(x.shape)}, of which calls have few rows")
            continue
        by_row = operator.kind in (*_SUMS, *_PLACES) and x.storage == "buffer"
        if not isinstance(out, Tensor) or len(out.shape) == len(x.shape) or by_row or not dims:
            continue
        before = [x.shape[dim] for dim in range(max(dims)) if dim not in dims]
        if any(size > 1 for size in before) or (any_length and operator.kind in _SUMS):
            yield Occurrence(f"{place}: of {list(x.shape)} along {list(dims)}")


def _refused(kind: str, x: Tensor, dims: tuple[int, ...]) -> str | None:
    rank, in_buffer = len(x.shape), x.storage == "buffer"
    of_last = dims == (rank - 1,)
    if kind in _PLACES:
        return None if of_last and x.storage != "texture3d" else f"in a {x.storage}"
    if kind in _SUMS and in_buffer:
        return None if of_last else "in a buffer"
    if len(dims) != 1 and (kind == "aten.var" or len(dims) != 2):
        return f"{len(dims)} dimensions"
    if rank == 4 and (0 in dims or (x.shape[0] > 1 and 1 in dims)):
        return "of several batches" if x.shape[0] > 1 else "of batches"
    packed = rank - PACKED_FROM_THE_END.get(x.layout, 0)
    return f"{x.layout}" if len(dims) == 2 and packed in dims else None


def _reductions(
    graph: VulkanGraph, kinds: tuple[str, ...]
) -> Iterator[tuple[str, Operator, Tensor, tuple[int, ...]]]:
    """Where each is, the operator, of what, and along which dimensions, counted from the first."""
    for place, operator, x in tensors_of(graph, kinds):
        dims = fixed_value(graph, operator, 1)
        listed = dims if isinstance(dims, list | tuple) else [dims]
        if x.shape and all(isinstance(dim, int) for dim in listed):
            yield place, operator, x, tuple(sorted(dim % len(x.shape) for dim in listed))
