"""Triggers of defects of rotary embeddings."""

import math

from quatrain.program import VulkanGraph
from quatrain.targets.triggers.occurrence import Occurrence, Occurrences, operators, tensors_of

_INTERLEAVED, _HALVES = "et_vk.apply_rotary_emb", "et_vk.apply_rotary_emb_hf"
_BUFFER_ROW = 4  # numbers that a kernel reads together from a buffer
_THREAD = 8  # numbers of a head that a thread of the interleaved kernel writes, if any
_LEFT_OUT = 4  # of which it writes none where no more than this many are left


def rotary_width_not_of_8(graph: VulkanGraph) -> Occurrences:
    """`apply_rotary_emb_hf` that rotates a number of channels that is not a multiple of 8."""
    for place, _, cos in tensors_of(graph, (_HALVES,), at=2):
        if cos.shape[-1] % 8:
            yield Occurrence(f"{place}: rotary width {cos.shape[-1]}")


def interleaved_rotary_tails(graph: VulkanGraph) -> Occurrences:
    """`apply_rotary_emb` of heads that are 1 to 4 wider than a multiple of 8."""
    for place, _, query in tensors_of(graph, (_INTERLEAVED,)):
        if 0 < query.shape[-1] % _THREAD <= _LEFT_OUT:
            yield Occurrence(f"{place}: heads {query.shape[-1]} wide")


def rotary_rows_in_buffers(graph: VulkanGraph) -> Occurrences:
    """Rotary embeddings in buffers of heads whose width is not a multiple of 4."""
    for place, _, query in tensors_of(graph, (_INTERLEAVED, _HALVES)):
        if query.storage == "buffer" and query.shape[-1] % _BUFFER_ROW:
            yield Occurrence(f"{place}: heads {query.shape[-1]} wide")


def rotary_of_batches(graph: VulkanGraph) -> Occurrences:
    """Rotary embeddings of several batches."""
    for place, _, query in tensors_of(graph, (_INTERLEAVED, _HALVES)):
        if math.prod(query.shape[:-3]) > 1:
            yield Occurrence(f"{place}: {list(query.shape)}")


def more_key_heads_than_query_heads(graph: VulkanGraph) -> Occurrences:
    """Rotary embedding of more key heads than query heads."""
    for place, operator in operators(graph, _INTERLEAVED, _HALVES):
        queries, keys = (graph.tensor(operator.named_args[x]).shape[-2] for x in ("xq", "xk"))
        if keys > queries:
            yield Occurrence(f"{place}: {keys} key heads, {queries} query heads")
