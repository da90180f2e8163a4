"""What each instruction of a method reads and writes."""

from collections.abc import Sequence
from dataclasses import dataclass

from quatrain.program.delegate import Delegate
from quatrain.program.file.flatbuffer import Record
from quatrain.program.methods import Instruction, Method
from quatrain.program.vulkan.operator_schemas import operator_kind
from quatrain.program.xnnpack_delegate import xnnpack_result_count

_VIEW = "executorch_prim.et_view.default"
# Kernel -> which of its arguments are caches that it writes into.
CACHE_ARGUMENTS = {
    "sdpa_with_kv_cache": (3, 4), "update_cache": (1,), "update_cache_with_indices": (1,),
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """An instruction: the values that it reads and writes, and where it may go on but at the next.

    `operator`: its kind, as "aten.add", of a kernel. `changed`: the caches among what it reads that
    it writes into. `is_alias`: what it writes is another name of what it reads.
    """

    read: frozenset[int] = frozenset()
    written: frozenset[int] = frozenset()
    operator: str = ""
    changed: frozenset[int] = frozenset()
    goes_to: int | None = None
    is_alias: bool = False


def method_steps(plan: Record, method: Method, delegates: Sequence[Delegate]) -> list[Step] | None:
    """The steps of `method`, whose plan that is; None if it calls one of `delegates` of which it is
    not known how many results it gives."""
    values = [value.val for value in plan.values or ()]
    steps = [_step(each, values, delegates) for each in method.instructions]
    known = [step for step in steps if step is not None]
    return known if len(known) == len(steps) else None


def _step(
    each: Instruction, values: list[Record | None], delegates: Sequence[Delegate]
) -> Step | None:
    given = [frozenset(_flat(index, values)) for index in each.args]
    match each.kind:
        case "kernel" if given:
            return _kernel(given, str(each.target))
        case "delegate":
            results = _results(delegates[int(each.target)])
            first = len(given) - (results or 0)
            split = frozenset().union(*given[:first]), frozenset().union(*given[first:])
            return None if results is None else Step(*split)
        case "move":
            return Step(given[0], given[1], is_alias=True)
        case "jump":
            return Step(goes_to=int(each.target))
        case _:
            return Step()


def _kernel(given: list[frozenset[int]], name: str) -> Step:
    """In calls of `x.out`, results occur twice: as out arguments, and as the returned values, which
    are one list if there are several."""
    written = given[-1]
    read = frozenset().union(*(one - written for one in given))
    in_place = frozenset().union(*(one & written for one in given[: -1 - len(written)]))
    kind = operator_kind(name)
    places = (place for place in CACHE_ARGUMENTS.get(kind, ()) if place < len(given))
    caches = frozenset().union(*(given[place] for place in places))
    return Step(read | in_place, written, kind, caches, is_alias=name == _VIEW)


def _flat(index: int, values: list[Record | None]) -> list[int]:
    value = values[index]
    if value is None or value.table not in ("TensorList", "OptionalTensorList"):
        return [index]
    return [i for i in value.items if 0 <= i < len(values)]


def _results(delegate: Delegate) -> int | None:
    """How many results it gives; None if that is not known here."""
    if delegate.graph:
        return len(delegate.graph.outputs)
    return xnnpack_result_count(delegate)
