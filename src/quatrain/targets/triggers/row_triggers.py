"""Triggers of softmax, selections and embeddings over dimensions that the runtime misreads, or
refuses."""

import math
from collections.abc import Iterator

from quatrain.program import Program, Tensor, ValueList, VulkanGraph
from quatrain.program.call_lengths import takes_calls_of_any_length
from quatrain.targets.triggers.occurrence import (
    PACKED_FROM_THE_END,
    Occurrence,
    Occurrences,
    fixed_value,
    operators,
    tensors_of,
)

_WORKERS = 4  # of softmax.glsl, each of which reads one place whether or not there is one


def int4_embedding_of_batches(graph: VulkanGraph) -> Occurrences:
    """Int4 embeddings of several rows of tokens, in textures."""
    for place, operator in operators(graph, "et_vk.embedding_q4gsw"):
        tokens = graph.tensor(operator.named_args["indices"])
        if tokens.storage == "texture3d" and math.prod(tokens.shape[:-1]) > 1:
            yield Occurrence(f"{place}: of tokens {list(tokens.shape)}")


def softmax_past_the_end(program: Program, graph: VulkanGraph) -> Occurrences:
    """Softmax in textures along another dimension than the packed one, of fewer than four places in
    some call."""
    any_length = takes_calls_of_any_length(program, graph)
    for place, x, dim in _softmax(graph):
        if x.storage != "texture3d":
            continue
        along = len(x.shape) - dim
        packed = PACKED_FROM_THE_END.get(x.layout, along)
        if along != packed and (any_length or x.shape[dim] < _WORKERS):
            yield Occurrence(f"{place}: of {list(x.shape)} along dimension -{along}")


def softmax_of_channels_and_batches(graph: VulkanGraph) -> Occurrences:
    """Softmax of [N, C, H, W] along the batches, or along the channels of several."""
    return [
        Occurrence(f"{place}: of {list(x.shape)} along dimension {dim}")
        for place, x, dim in _softmax(graph)
        if len(x.shape) == 4 and (dim == 0 or (dim == 1 and x.shape[0] > 1))
    ]


def several_indices(graph: VulkanGraph) -> Occurrences:
    """`aten.index` by several tensors, or of another dimension than the first."""
    listed = [
        (place, graph.values[operator.named_args["indices"]])
        for place, operator in operators(graph, "aten.index")
    ]
    return [
        Occurrence(f"{place}: {len(indices.items)} indices")
        for place, indices in listed
        if isinstance(indices, ValueList) and len(indices.items) != 1
    ]


def _softmax(graph: VulkanGraph) -> Iterator[tuple[str, Tensor, int]]:
    """Where it is, of what, and along which dimension, counted from the first."""
    for place, operator, x in tensors_of(graph, ("aten._softmax", "aten._log_softmax")):
        dim = fixed_value(graph, operator, 1)
        if x.shape and isinstance(dim, int):
            yield place, x, dim % len(x.shape)
