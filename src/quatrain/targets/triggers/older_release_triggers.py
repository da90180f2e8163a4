"""Triggers of what older releases alone compute wrongly or refuse."""

from collections import Counter

from quatrain.program import Plain, Program, SymInt, Tensor, VulkanGraph
from quatrain.program.call_lengths import takes_calls_of_any_length
from quatrain.program.delegate_call import integers_handed_over
from quatrain.targets.triggers.occurrence import (
    CACHED_ATTENTION,
    Occurrence,
    Occurrences,
    operators,
    tensors_of,
)

_ROWS = 4  # of attention scores that the runtime computes together
_COMPARISONS = ("aten.eq", "aten.lt", "aten.le", "aten.gt", "aten.ge")


def rows_chosen_in_buffers(graph: VulkanGraph) -> Occurrences:
    """`aten.index` of tensors of two dimensions or more in buffers."""
    return [
        Occurrence(f"{place}: of {list(x.shape)}")
        for place, _, x in tensors_of(graph, ("aten.index",))
        if x.storage == "buffer" and len(x.shape) > 1
    ]


def comparisons_in_textures(graph: VulkanGraph) -> Occurrences:
    """Comparisons of two tensors in textures."""
    return [
        Occurrence(f"{place}: of {list(x.shape)}")
        for place, _, x in tensors_of(graph, _COMPARISONS)
        if x.storage == "texture3d"
    ]


def converted_integers(graph: VulkanGraph) -> Occurrences:
    """Conversions from integers or to them."""
    for place, operator, x in tensors_of(graph, ("aten._to_copy",)):
        made = graph.tensor(operator.out)
        if "int32" in (x.dtype, made.dtype) and x.dtype != made.dtype:
            yield Occurrence(f"{place}: {x.dtype} to {made.dtype}")


def embeddings_of_any_length(program: Program, graph: VulkanGraph) -> Occurrences:
    """Embeddings in programs that take calls of any length."""
    if not takes_calls_of_any_length(program, graph):
        return []
    return [Occurrence(place) for place, _ in operators(graph, "aten.embedding")]


def memory_of_several(graph: VulkanGraph) -> Occurrences:
    """Values that share memory."""
    used = Counter(
        value.mem_obj_id
        for value in graph.values
        if isinstance(value, Tensor) and value.mem_obj_id is not None
    )
    shared = sum(values for values in used.values() if values > 1)
    return [Occurrence(f"{shared} values share memory")] if shared else []


def attention_of_uneven_calls(program: Program, graph: VulkanGraph) -> Occurrences:
    """Attention whose longest call is not a multiple of 4 tokens."""
    any_length = takes_calls_of_any_length(program, graph)
    for place, operator in operators(graph, *CACHED_ATTENTION):
        longest = graph.tensor(operator.named_args["q"]).shape[-3]
        if longest % _ROWS:
            even = max(longest - longest % _ROWS, _ROWS)
            again = f"export again with {{prefill_chunk_size:{even}}}"
            remedy = f"{again}, or ship runtime 1.5 or later"
            if any_length and longest > _ROWS:
                remedy = f"feed at most {even} tokens in a call, or {remedy}"
            where = f"{place}: calls of {longest}{' at most' if any_length else ''}"
            yield Occurrence(where, "conditional" if any_length else None, remedy)


def integers_of_calls(program: Program) -> Occurrences:
    """Integers that a method hands to its delegate, or gets from it."""
    found = integers_handed_over(program.delegates, program.root, program.methods)
    return [Occurrence(text) for text in found]


def numbers_of_another_kind(graph: VulkanGraph) -> Occurrences:
    """Fixed numbers that are added to one that changes with the call, or are attention's position;
    and ranges between numbers that change."""
    for place, operator in operators(graph, "add", *CACHED_ATTENTION):
        taken = operator.args[:-1] if operator.kind == "add" else [operator.named_args["start_pos"]]
        if any(isinstance(graph.values[one], Plain) for one in taken):
            yield Occurrence(f"{place}: of a fixed number")
    for place, operator in operators(graph, "aten.arange"):
        if any(isinstance(graph.values[one], SymInt) for one in operator.args[:3]):
            yield Occurrence(f"{place}: to a number that changes")
