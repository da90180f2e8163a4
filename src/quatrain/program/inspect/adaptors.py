"""LoRA adaptors in a graph: `base(x) + B(A(x))`, as programs of Meta's QLoRA layout have them."""

from collections.abc import Collection
from dataclasses import dataclass

from quatrain.program.vulkan.def_use import DefUse

_LAID_OUT = {"aten.view_copy", "aten.clone"}


@dataclass(frozen=True)
class Adaptor:
    """The linears `a` and `b`, by index, beside the linear `base`; `result` is the sum's id."""

    base: int
    a: int
    b: int
    result: int


def find_adaptors(def_use: DefUse, linears: Collection[int]) -> list[Adaptor]:
    """Those of a graph whose linears are at the indices `linears`."""
    found = (_adaptor(def_use, b, linears) for b in linears)
    return [adaptor for adaptor in found if adaptor is not None]


def _adaptor(def_use: DefUse, b: int, linears: Collection[int]) -> Adaptor | None:
    """The one whose second linear is at `b`, if that is one."""
    operators = def_use.graph.operators
    a = def_use.producer.get(operators[b].args[0])
    added = def_use.downstream([operators[b].out], lambda i: operators[i].kind not in _LAID_OUT)
    if a is None or a not in linears or len(added) != 1 or operators[added[0]].kind != "aten.add":
        return None
    terms = operators[added[0]].args[:2]
    beside = [index for index in def_use.upstream(terms, linears.__contains__) if index != b]
    taken = [def_use.before(operators[index].args[0], _LAID_OUT) for index in (a, *beside)]
    if len(beside) != 1 or taken[0] != taken[1]:
        return None
    return Adaptor(beside[0], a, b, operators[added[0]].out)
