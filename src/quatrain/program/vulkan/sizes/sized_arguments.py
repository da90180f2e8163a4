"""What an operator takes, as far as the sizes of its results follow from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quatrain.program.vulkan.graph import Operator, ValueList, VulkanGraph
from quatrain.program.vulkan.sizes.call_numbers import CallNumber

# Of a result, by dimension; None is what follows from numbers that a call gives.
Sizes = list[int | None]


class Unfit(Exception):
    """The operator cannot be computed of what it takes: the message says why, after its name."""


@dataclass(frozen=True)
class SizedArguments:
    """The arguments of `operator` by name; `numbers` are the integers of the graph. Raises
    `InputError` or an error of `UNFIT` where one is another kind of value than is asked for."""

    graph: VulkanGraph
    operator: Operator
    numbers: Mapping[int, CallNumber]

    def sizes(self, name: str = "x") -> list[int]:
        """Of a tensor, in the longest call."""
        return list(self.graph.tensor(self.operator.named_args[name]).shape)

    def all_sizes(self, name: str) -> list[list[int]]:
        """Of a list of tensors."""
        items = self.graph.values[self.operator.named_args[name]]
        if not isinstance(items, ValueList):
            raise ValueError(f"{name} is no list of values")
        return [list(self.graph.tensor(item).shape) for item in items.items]

    def fixed(self, name: str) -> Any:
        """What no call changes."""
        return self.graph.plain(self.operator.named_args[name])

    def dim(self, rank: int, name: str = "dim") -> int:
        """A dimension of `rank`, counted from the first. Raises `Unfit` for one that is not
        there."""
        return _counted(self.fixed(name) or 0, rank)

    def dims(self, rank: int, name: str = "dims") -> set[int]:
        """The same of several, or of all if none are named."""
        named = self.fixed(name)
        listed = [named] if isinstance(named, int) else named or range(rank)
        return {_counted(dim, rank) for dim in listed}

    def number(self, name: str, default: int) -> CallNumber:
        """An integer; `default` if none is stated."""
        value_id = self.operator.named_args[name]
        if value_id in self.numbers:
            return self.numbers[value_id]
        stated = self.fixed(name)
        return CallNumber(default if stated is None else stated)

    def integers(self, name: str) -> Sizes:
        """A list of integers, None for each that a call gives."""
        value = self.graph.values[self.operator.named_args[name]]
        if isinstance(value, ValueList):
            return [self.numbers[item].known for item in value.items]
        return list(self.fixed(name) or ())


def _counted(dim: int, rank: int) -> int:
    rank = max(rank, 1)  # a number has one to count from
    if not -rank <= dim < rank:
        raise Unfit(f"takes dimension {dim} of {rank}")
    return dim % rank
