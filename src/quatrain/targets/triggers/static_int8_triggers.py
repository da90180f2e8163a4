"""Triggers of operators whose activations are int8 by scales that are fixed at export."""

import math

from quatrain.program import Program, VulkanGraph
from quatrain.program.call_lengths import takes_calls_of_any_length
from quatrain.program.inspect.call_shapes import CallShapes
from quatrain.targets.triggers.occurrence import (
    Occurrence,
    Occurrences,
    longest_call,
    operators,
    tensors_of,
)

# Operator -> how many of the last dimensions of what it reads are of one batch.
_LINEARS = ("et_vk.linear_q8ta_q8csw", "et_vk.q8ta_linear", "et_vk.q8ta_linear_gemv")
_CONVOLUTIONS = (
    "et_vk.q8ta_conv2d", "et_vk.q8ta_conv2d_pw", "et_vk.q8ta_conv2d_dw",
    "et_vk.q8ta_conv2d_transposed",
)  # fmt: skip
_OF_ONE_BATCH = {**dict.fromkeys(_LINEARS, 2), **dict.fromkeys(_CONVOLUTIONS, 3)}


def static_int8_of_batches(graph: VulkanGraph) -> Occurrences:
    """Convolutions and linears of int8 activations over several batches."""
    return [
        Occurrence(f"{place}: {list(x.shape)}")
        for place, operator, x in tensors_of(graph, _OF_ONE_BATCH)
        if math.prod(x.shape[: -_OF_ONE_BATCH[operator.kind]]) > 1
    ]


def static_int8_broadcast(graph: VulkanGraph) -> Occurrences:
    """Sums of int8 tensors of different sizes."""
    for place, operator, a in tensors_of(graph, ("et_vk.q8ta_add",)):
        b = graph.tensor(operator.args[1])
        if a.shape != b.shape:
            yield Occurrence(f"{place}: {list(a.shape)} and {list(b.shape)}")


def static_int8_of_any_length(program: Program, graph: VulkanGraph) -> Occurrences:
    """Linears, convolutions and sums of int8 activations whose sizes change with the call."""
    if not takes_calls_of_any_length(program, graph):
        return []
    one = CallShapes(graph, 1, longest=longest_call(program, graph))
    return [
        Occurrence(place)
        for place, operator in operators(graph, *_OF_ONE_BATCH, "et_vk.q8ta_add")
        if not one.is_whole(operator.out)
    ]
