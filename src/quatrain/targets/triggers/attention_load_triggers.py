"""Triggers of what the runtime checks of attention and rotary embeddings when it loads a program.

Sources: the checks (VK_CHECK_COND) of `SDPA.cpp` and `RotaryEmbedding.cpp` of ExecuTorch 1.5.
"""

from quatrain.program import Plain, VulkanGraph
from quatrain.targets.triggers.occurrence import (
    CACHED_ATTENTION,
    Occurrence,
    Occurrences,
    is_width_packed,
    layout_text,
    named_tensor,
    operators,
    tensors_of,
)

# How many channels of a head each column of a rotary embedding's tables turns.
_ROTARY = {"et_vk.apply_rotary_emb_hf": 1, "et_vk.apply_rotary_emb": 2}
# What is put into which cache.
_PUT_INTO = {
    "sdpa_with_kv_cache": (("k", "k_cache"), ("v", "v_cache")),
    "update_cache": (("value", "cache"),),
}


def rotary_tables(graph: VulkanGraph) -> Occurrences:
    """Rotary embeddings with tables of other widths than the heads (`_hf`: wider ones), shorter
    than the longest call, or unlike each other; of queries and keys unlike each other, or none of
    these width-packed."""
    for place, operator in operators(graph, *_ROTARY):
        names = ("xq", "xk", "freqs_cos", "freqs_sin")
        query, key, cos, sin = (named_tensor(graph, operator, name) for name in names)
        if query is None or key is None or cos is None or sin is None or len(query.shape) < 3:
            continue
        heads, turned = query.shape[-1], cos.shape[-1] * _ROTARY[operator.kind]
        partly = operator.kind == "et_vk.apply_rotary_emb_hf"
        if turned > heads or (turned < heads and not partly):
            yield Occurrence(f"{place}: tables {cos.shape[-1]}, heads {heads}")
        if partly and cos.shape[-2] < query.shape[-3]:
            rows, tokens = cos.shape[-2], query.shape[-3]
            yield Occurrence(f"{place}: tables of {rows} rows, calls of {tokens} tokens")
        if cos.shape != sin.shape:
            yield Occurrence(f"{place}: tables of {list(cos.shape)} and {list(sin.shape)}")
        if key.shape[-3::2] != query.shape[-3::2]:
            yield Occurrence(f"{place}: {list(query.shape)} and {list(key.shape)}")
        for tensor in (query, key, cos, sin):
            if not is_width_packed(tensor):
                yield Occurrence(f"{place}: {layout_text(tensor)}")
    for place, _, table in tensors_of(graph, ("et_vk.apply_rotary_emb_interleaved",), at=1):
        if table.storage == "texture3d":
            yield Occurrence(f"{place}: tables in a texture")


def attention_shapes(graph: VulkanGraph) -> Occurrences:
    """Attention of several batches, caches of different shapes or of others than what is put into
    them, or not width-packed."""
    for place, operator in operators(graph, *CACHED_ATTENTION):
        has_caches = operator.kind == "sdpa_with_kv_cache"
        names = ("q", "k_cache", "v_cache") if has_caches else ("q", "k", "v")
        query, key, value = (named_tensor(graph, operator, name) for name in names)
        if query is None or key is None or value is None:
            continue
        if any(len(t.shape) > 3 and t.shape[-4] != 1 for t in (query, key, value)):
            yield Occurrence(f"{place}: batches of {query.shape[-4]}")
        if key.shape != value.shape or query.shape[-1] != key.shape[-1]:
            shapes = ", ".join(str(list(t.shape)) for t in (query, key, value))
            yield Occurrence(f"{place}: query, keys and values of {shapes}")
        if not all(is_width_packed(t) for t in (query, key, value)):
            yield Occurrence(f"{place}: {layout_text(query)}, caches {layout_text(key)}")
    for kind, pairs in _PUT_INTO.items():
        for place, operator in operators(graph, kind):
            for names in pairs:
                new, cache = (named_tensor(graph, operator, name) for name in names)
                if new and cache and new.shape[-2:] != cache.shape[-2:]:
                    put = f"{list(new.shape)} into a cache of {list(cache.shape)}"
                    yield Occurrence(f"{place}: {put}")
    for place, operator in operators(graph, "et_vk.sdpa"):
        query, key, value = (named_tensor(graph, operator, name) for name in ("q", "k", "v"))
        if query is None or key is None or value is None:
            continue
        fits = len(query.shape) == len(key.shape) == len(value.shape) == 4
        alike = query.shape[-1:] == key.shape[-1:] and key.shape[-2:-1] == value.shape[-2:-1]
        if not fits or not alike:
            shapes = ", ".join(str(list(t.shape)) for t in (query, key, value))
            yield Occurrence(f"{place}: query, keys and values of {shapes}")
        if not all(is_width_packed(t) for t in (query, key, value)):
            yield Occurrence(f"{place}: {layout_text(query)}, keys {layout_text(key)}")


def attention_options(graph: VulkanGraph) -> Occurrences:
    """Attention with a mask, a scale of its own, dropout, or that is not causal."""
    for place, operator in operators(graph, *CACHED_ATTENTION):
        for name, taken in (
            ("attn_mask", (None,)),
            ("scale", (None,)),
            ("dropout_p", (None, 0)),
            ("is_causal", (None, True)),
        ):
            value = graph.values[operator.named_args[name]]
            if not isinstance(value, Plain):
                yield Occurrence(f"{place}: {name} is a tensor")
            elif value.value not in taken:
                yield Occurrence(f"{place}: {name} is {value.value}")
