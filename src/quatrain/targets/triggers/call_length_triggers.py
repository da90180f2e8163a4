"""Triggers of operators that the runtime computes for the longest call and refuses, or computes
otherwise, for a shorter one. Each was measured on ExecuTorch's runtime."""

from quatrain.program import Program, VulkanGraph
from quatrain.program.call_lengths import takes_calls_of_any_length
from quatrain.targets.triggers.occurrence import (
    Occurrence,
    Occurrences,
    fixed_value,
    longest_call,
    tensors_of,
)

_SIZES, _ALIGNED = 1, 2  # places of arguments of upsampling


def permutations_from_the_end(program: Program, graph: VulkanGraph) -> Occurrences:
    """Dimensions that are counted from the end, in programs that take calls of any length."""
    if not takes_calls_of_any_length(program, graph):
        return []
    orders = [
        (place, fixed_value(graph, operator, 1))
        for place, operator, _ in tensors_of(graph, ("aten.permute_copy", "aten.permute"))
    ]
    return [
        Occurrence(f"{place}: dimensions {list(order)}")
        for place, order in orders
        if isinstance(order, list | tuple) and any(dim < 0 for dim in order)
    ]


def upsampling_of_any_length(program: Program, graph: VulkanGraph) -> Occurrences:
    """Upsampling to a fixed size, or with aligned corners, of images whose sizes change with the
    call."""
    if not takes_calls_of_any_length(program, graph):
        return
    kinds = ("aten.upsample_nearest2d", "aten.upsample_bilinear2d")
    for place, operator, x in tensors_of(graph, kinds):
        sizes = fixed_value(graph, operator, _SIZES)
        aligned = operator.kind == kinds[1] and fixed_value(graph, operator, _ALIGNED)
        if sizes or aligned:
            yield Occurrence(f"{place}: of {list(x.shape)} at most")


def slices_past_the_call(program: Program, graph: VulkanGraph) -> Occurrences:
    """Slices of a call's places that begin or end further in than a short call is long."""
    longest = longest_call(program, graph)
    for place, operator, x in tensors_of(graph, ("aten.slice_copy",)):
        dim, start, end = (fixed_value(graph, operator, at) for at in (1, 2, 3))
        along = x.shape[(dim or 0) % len(x.shape)] if x.shape else 0
        begins = isinstance(start, int) and (start > 0 or start < -1)
        ends = isinstance(end, int) and end < -1
        if longest > 1 and along == longest and (begins or ends):
            yield Occurrence(f"{place}: {start} to {end} of {along} at most")
