"""Triggers of defects of attention, of the products and softmax that it may be written in, and of
layer norms."""

from collections import Counter

from quatrain.program import Program, Tensor, VulkanGraph
from quatrain.program.call_lengths import takes_calls_of_any_length
from quatrain.program.inspect.sizes import is_held
from quatrain.program.vulkan.half_buffers import in_half_buffer
from quatrain.targets.triggers.occurrence import (
    CACHED_ATTENTION,
    Occurrence,
    Occurrences,
    attention_keys,
    operators,
    tensors_of,
)

_LONG = 1024  # positions, from which on a weight may be less than float16 adds to a sum of 1
# Operator -> the argument whose last dimension it sums over.
_SUMMED = {
    "aten.bmm": "a", "aten.mm": "a", "aten.addmm": "a", "aten.linear": "x", "aten._softmax": "x",
}  # fmt: skip


def attention_in_buffers_not_of_4(graph: VulkanGraph) -> Occurrences:
    """Attention in buffers over heads whose width is not a multiple of 4."""
    for place, operator in operators(graph, *CACHED_ATTENTION):
        query = graph.tensor(operator.named_args["q"])
        if query.storage == "buffer" and query.shape[-1] % 4:
            yield Occurrence(f"{place}: heads {query.shape[-1]} wide")


def attention_in_half_over_long_contexts(graph: VulkanGraph) -> Occurrences:
    """Attention of prompts in float16 buffers over a context that float16 sums do not reach."""
    for place, operator in operators(graph, *CACHED_ATTENTION):
        query, cache = graph.tensor(operator.named_args["q"]), attention_keys(graph, operator)
        if (query.dtype, query.storage) != ("float16", "buffer") or query.shape[-3] == 1:
            continue
        if isinstance(cache, Tensor) and cache.shape[-3] > _LONG:
            yield Occurrence(f"{place}: a context of {cache.shape[-3]}")
    for place, operator, key in tensors_of(graph, ("et_vk.sdpa",), at=1):
        if in_half_buffer(graph, operator) and key.shape[-2] > _LONG:
            yield Occurrence(f"{place}: a context of {key.shape[-2]}")


def long_sums_in_half_buffers(graph: VulkanGraph) -> Occurrences:
    """Products and softmax in float16 buffers over more terms than float16 sums reach."""
    for place, operator in operators(graph, *_SUMMED):
        if not in_half_buffer(graph, operator):
            continue
        terms = graph.tensor(operator.named_args[_SUMMED[operator.kind]]).shape[-1]
        if terms > _LONG:
            yield Occurrence(f"{place}: sums of {terms}")


def layer_norms_in_half_buffers(graph: VulkanGraph) -> Occurrences:
    """Layer norms and variances whose squares are summed in float16."""
    return [
        Occurrence(f"{place}: rows of {x.shape[-1]}")
        for place, operator, x in tensors_of(graph, ("aten.native_layer_norm", "aten.var"))
        if in_half_buffer(graph, operator) and x.shape
    ]


def fused_attention_in_buffers(program: Program, graph: VulkanGraph) -> Occurrences:
    """`et_vk.sdpa` in buffers of keys whose number or width is not a multiple of 4, or may be; and
    of values of another width than the keys."""
    any_length = takes_calls_of_any_length(program, graph)
    for place, operator, key in tensors_of(graph, ("et_vk.sdpa",), at=1):
        width, of_values = key.shape[-1], graph.tensor(operator.args[2]).shape[-1]
        in_buffer, texels = key.storage == "buffer", any(size % 4 for size in key.shape[-2:])
        if of_values > width or (in_buffer and (texels or of_values != width)):
            yield Occurrence(f"{place}: keys {list(key.shape)}, values {of_values} wide")
        elif in_buffer and any_length:
            yield Occurrence(f"{place}: keys {list(key.shape)} at most", "possible")


def caches_of_their_own(program: Program, graph: VulkanGraph) -> Occurrences:
    """KV caches of `sdpa_with_kv_cache` that others read too, or that hold more than zeros."""
    readers = Counter(value for operator in graph.operators for value in operator.args[:-1])
    held = dict[str, bool]()
    for place, operator in operators(graph, "sdpa_with_kv_cache"):
        for name in ("k_cache", "v_cache"):
            cache = operator.named_args[name]
            if readers[cache] > 1:
                yield Occurrence(f"{place}: value {cache} is another's cache too")
            elif is_held(program, graph, cache):
                key = graph.constant_key(cache) or str(cache)
                if key not in held:
                    held[key] = bool(graph.constant(cache).any())
                    program.release_memory()
                if held[key]:
                    yield Occurrence(f"{place}: {name} does not start with zeros")


def attention(graph: VulkanGraph) -> Occurrences:
    """Attention operators that read a KV cache."""
    return [Occurrence(place) for place, _ in operators(graph, *CACHED_ATTENTION)]


def context_of_a_cache(graph: VulkanGraph) -> Occurrences:
    """Attention over a KV cache, and how many tokens that holds."""
    for place, operator in operators(graph, *CACHED_ATTENTION):
        cache = attention_keys(graph, operator)
        room = cache.shape[-3:] if isinstance(cache, Tensor) else ()
        yield Occurrence(f"{place}: {room[0]} tokens" if len(room) == 3 else place)
