"""Finds attention in a graph: an operator of its own, or products around a softmax."""

from collections.abc import Iterator
from dataclasses import dataclass

from quatrain.program.vulkan.def_use import DefUse
from quatrain.program.vulkan.graph import Operator, ValueList

_OPERATORS = {"sdpa_with_kv_cache", "custom_sdpa", "et_vk.sdpa"}
_MATRIX_PRODUCT = "aten.bmm"


@dataclass(frozen=True)
class AttentionPlace:
    """Operator `operator`, by index, gives `out` of the queries, keys and values (value ids)."""

    operator: int
    q: int
    k: int
    v: int
    out: int


def find_attentions(def_use: DefUse) -> Iterator[AttentionPlace]:
    """The attentions of a graph in the order of its layers.

    Keys and values are those of the call's tokens, where an operator writes them to a cache first.
    """
    for index, operator in enumerate(def_use.graph.operators):
        if operator.kind in _OPERATORS:
            names = operator.named_args
            k, v = (_written_to(def_use, names[name]) for name in ("k", "v"))
            yield AttentionPlace(index, names["q"], k, v, operator.out)
        elif operator.kind == "aten._softmax":
            found = _of_matrix_products(def_use, index, operator)
            if found is not None:
                yield found


def _of_matrix_products(def_use: DefUse, index: int, softmax: Operator) -> AttentionPlace | None:
    """softmax(q k^T) v over a cache; None if it is another softmax."""
    operators = def_use.graph.operators
    scores = def_use.upstream([softmax.args[0]], lambda i: operators[i].kind == _MATRIX_PRODUCT)
    used = [operators[i] for i in def_use.consumers.get(softmax.out, ())]
    if len(used) == 1 and used[0].kind == "aten.slice_copy":  # the weights without a sink's
        used = [operators[i] for i in def_use.consumers.get(used[0].out, ())]
    if len(scores) != 1 or len(used) != 1 or used[0].kind != _MATRIX_PRODUCT:
        return None
    q, keys = operators[scores[0]].args[:2]
    k, v = _cached(def_use, keys), _cached(def_use, used[0].args[1])
    if k is None or v is None:
        return None
    return AttentionPlace(index, q, k, v, used[0].out)


def _cached(def_use: DefUse, value: int) -> int | None:
    """What was put into a cache, or beside it, to make `value`; None without a cache."""
    seen: set[int] = set()  # a damaged graph may run in a circle
    while (written := _written_to(def_use, value)) == value:
        index = def_use.producer.get(value)
        if index is None or index in seen:
            return None
        seen.add(index)
        operator = def_use.graph.operators[index]
        if operator.kind == "aten.cat":
            parts = def_use.graph.values[operator.args[0]]
            if not isinstance(parts, ValueList) or len(parts.items) != 2:
                return None
            kept, added = parts.items
            return None if _written_to(def_use, kept) == kept else added
        value = operator.args[0]
    return written


def _written_to(def_use: DefUse, cache: int) -> int:
    """The value that another operator writes to `cache`; without one, `cache` itself."""
    for index in def_use.consumers.get(cache, ()):
        operator = def_use.graph.operators[index]
        if operator.kind == "update_cache" and operator.args[1] == cache:
            return operator.args[0]
    return cache
