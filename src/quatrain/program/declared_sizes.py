"""Whether a graph says the sizes of its results that their operators give.

A runtime allocates and computes as many numbers as are said, until a call of another length makes
it ask the operators: numbers beyond what one gives are anything.
"""

from collections.abc import Iterator

from quatrain.program.elementwise import ELEMENTWISE
from quatrain.program.graph import Operator, Plain, Tensor, ValueList, VulkanGraph
from quatrain.program.linear_kernels import INT4_LINEARS

_OF_TWO = "add sub mul div minimum pow where eq ne ge gt le lt logical_and logical_or bitwise_and"
_OF_SEVERAL = {f"aten.{name}" for name in (*_OF_TWO.split(), "bitwise_or")}
# Results that are of the sizes of an argument.
_LIKE = {
    **dict.fromkeys(ELEMENTWISE - _OF_SEVERAL, "x"),
    **dict.fromkeys(("et_vk.rms_norm", "aten._softmax", "aten._log_softmax"), "x"),
    "sdpa_with_kv_cache": "q",
}
_LINEARS = {*INT4_LINEARS, "aten.linear"}


def misdeclared_sizes(graph: VulkanGraph) -> Iterator[str]:
    """Of each result whose sizes are others than its operator gives, where and what, in words."""
    for index, operator in enumerate(graph.operators):
        made = graph.values[operator.out]
        given = _given(graph, operator) if isinstance(made, Tensor) else {}
        if isinstance(made, Tensor) and any(
            place >= len(made.shape) or made.shape[place] != size for place, size in given.items()
        ):
            sizes = [given.get(place, "any") for place in range(len(made.shape))]
            yield (
                f"operator {index}, {operator.name}, gives {_text(sizes)}, and the size of its "
                f"result is said to be {list(made.shape)}"
            )


def _given(graph: VulkanGraph, operator: Operator) -> dict[int, int]:
    """The sizes of what `operator` gives, by dimension, as far as they are known."""
    names, kind = operator.named_args, operator.kind
    if kind == "aten.view_copy":
        return _stated(graph.values[names["size"]], graph)
    x = graph.values[names.get(_LIKE.get(kind, "x" if kind in _LINEARS else ""), operator.out)]
    if not isinstance(x, Tensor):
        return {}
    sizes = dict(enumerate(x.shape))
    if kind in _LINEARS:
        del sizes[len(x.shape) - 1]
    return sizes


def _stated(shape: object, graph: VulkanGraph) -> dict[int, int]:
    """The sizes that a view is asked for, but those that follow from the others."""
    if isinstance(shape, ValueList):
        found = [
            value.value if isinstance(value := graph.values[i], Plain) else -1 for i in shape.items
        ]
    else:
        found = list(shape.value or ()) if isinstance(shape, Plain) else []
    return {place: size for place, size in enumerate(found) if isinstance(size, int) and size >= 0}


def _text(sizes: list[int | str]) -> str:
    return f"[{', '.join(map(str, sizes))}]"
