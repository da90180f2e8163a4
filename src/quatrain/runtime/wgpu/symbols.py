"""The graph's integers that change from step to step: sequence length, position, their sums."""

from collections.abc import Callable, Mapping

import numpy as np

from quatrain.errors import InputError
from quatrain.program import Operator, Plain, SymInt, VulkanGraph

_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "floordiv": lambda a, b: a // b,
}
# The kinds of operator that `symbol_of` computes on the host.
SYMBOL_KINDS = {*_ARITHMETIC, "sym_size", "et_vk.select_as_symint"}


def symbol_of(
    graph: VulkanGraph,
    operator: Operator,
    known: Mapping[int, int],
    shape: Callable[[int], tuple[int, ...]],
    inputs: Mapping[int, np.ndarray],
) -> int:
    """The value of an operator of `SYMBOL_KINDS`.

    `known` has the symbols so far, `shape` gives a tensor's present shape, `inputs` the host's
    copies of the graph's inputs.
    """
    args = operator.named_args
    if operator.kind == "sym_size":
        return shape(args["x"])[graph.plain(args["dim"])]
    if operator.kind == "et_vk.select_as_symint":
        if args["x"] not in inputs:
            raise InputError(
                f"{operator.name} reads a number that is computed on the GPU; only numbers read "
                "from the program's inputs are supported. Use --device reference."
            )
        dim, index = graph.plain(args["dim"]), graph.plain(args["index"])
        return int(inputs[args["x"]].take(index, axis=dim).item())
    numbers = [number(graph, args[name], known) for name in ("a", "b")]
    return _ARITHMETIC[operator.kind](*numbers)


def number(graph: VulkanGraph, value_id: int, known: Mapping[int, int]) -> int:
    """The integer `value_id`, fixed or symbolic."""
    value = graph.values[value_id]
    if isinstance(value, SymInt):
        return known.get(value_id, value.value)
    if isinstance(value, Plain) and isinstance(value.value, int):
        return value.value
    raise InputError(f"value {value_id} of the graph is {value}, expected an integer")
