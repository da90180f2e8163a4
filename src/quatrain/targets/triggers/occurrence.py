"""Where in a program a defect is triggered."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from quatrain.program import Operator, Plain, Program, Tensor, Value, ValueList, VulkanGraph
from quatrain.program.call_lengths import takes_calls_of_any_length

CACHED_ATTENTION = ("sdpa_with_kv_cache", "custom_sdpa")
# Layout -> the dimension that a texture is packed along, counted from the end.
PACKED_FROM_THE_END = {"width_packed": 1, "height_packed": 2, "channels_packed": 3}


@dataclass(frozen=True)
class Occurrence:
    """Where a trigger fires; `certainty` overrides the defect's where this one is less sure,
    `remedy` where it needs another, with the places of a defect's."""

    where: str
    certainty: str | None = None
    remedy: str | None = None


Occurrences = Iterable[Occurrence]
Placed = tuple[str, Operator, Tensor]


def is_constant(graph: VulkanGraph, value_id: int) -> bool:
    """Whether the value is a constant tensor."""
    return graph.stored(value_id) is not None


def fixed_value(graph: VulkanGraph, operator: Operator, at: int) -> Any:
    """The fixed value of the operator's argument at this place; None if there is none."""
    value = graph.values[operator.args[at]] if at < len(operator.args) - 1 else None
    return value.value if isinstance(value, Plain) else None


def tensors_of(graph: VulkanGraph, kinds: Iterable[str], at: int = 0) -> list[Placed]:
    """The operators of these kinds whose argument at this place is a tensor: where each is, it, and
    that tensor."""
    found = []
    for place, operator in operators(graph, *kinds):
        value = graph.values[operator.args[at]] if at < len(operator.args) else None
        if isinstance(value, Tensor):
            found.append((place, operator, value))
    return found


def attention_keys(graph: VulkanGraph, operator: Operator) -> Value:
    """What an operator of `CACHED_ATTENTION` reads its keys from, [1, context, heads, width]."""
    names = operator.named_args
    return graph.values[names["k_cache" if "k_cache" in names else "k"]]


def tensor_text(graph: VulkanGraph, value_id: int) -> str:
    """A tensor's type and shape, for people."""
    tensor = graph.tensor(value_id)
    return f"{tensor.dtype}{list(tensor.shape)}"


def operators(graph: VulkanGraph, *kinds: str) -> list[tuple[str, Operator]]:
    """The operators of these kinds, each with where it is, for people."""
    return [
        (f"operator {index}, {operator.kind}", operator)
        for index, operator in enumerate(graph.operators)
        if operator.kind in kinds
    ]


def longest_call(program: Program, graph: VulkanGraph) -> int:
    """The places of the longest call, where they change with it: the second dimension of the first
    input that has two; else 0."""
    if not takes_calls_of_any_length(program, graph):
        return 0
    inputs = [graph.values[i] for i in graph.inputs]
    shapes = [one.shape for one in inputs if isinstance(one, Tensor) and len(one.shape) > 1]
    return shapes[0][1] if shapes else 0


def named_tensor(graph: VulkanGraph, operator: Operator, name: str) -> Tensor | None:
    """An operator's argument that is a tensor; of several results the first."""
    value = graph.values[operator.named_args.get(name, operator.out)]
    if isinstance(value, ValueList) and value.items:
        value = graph.values[value.items[0]]
    return value if isinstance(value, Tensor) else None


def is_width_packed(tensor: Tensor) -> bool:
    """Whether it is packed along its last dimension, as what says nothing is."""
    return tensor.layout in ("width_packed", "default")


def layout_text(tensor: Tensor) -> str:
    """How a tensor lies, for people."""
    return f"{tensor.layout} in a {tensor.storage}"
