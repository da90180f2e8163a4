"""The sizes of a graph's values in a call of a given length; a graph states only the largest."""

import math
from contextlib import suppress

from quatrain.program.vulkan.graph import Operator, Plain, SymInt, Tensor, ValueList, VulkanGraph

# Operators whose results have the sizes that theirs follow from, element by element or by name.
_EXACT = {
    "aten.view_copy", "aten.permute_copy", "aten.cat", "aten.bmm", "aten.add", "aten.mul",
    "aten.le", "aten.ge", "aten.logical_and", "aten.where", "aten.tanh", "aten._softmax",
}  # fmt: skip


def longest_call(graph: VulkanGraph) -> int:
    """The most tokens in a call of `graph`, whose first tensor is the tokens or the position; 1 if
    it has neither."""
    inputs = [graph.values[value_id] for value_id in graph.inputs]
    shapes = [value.shape for value in inputs if isinstance(value, Tensor)]
    return next((shape[1] for shape in shapes if len(shape) > 1), 1)


class CallShapes:
    """The shapes of `graph` in a call of `tokens` tokens, the first at position `start`.

    `longest`: the most tokens that a call may have; None if all calls have one length, which is so
    of a graph that asks for no size, unless its `longest` is given. The sizes in
    masked attention follow from its operators (`_exact`); any other value has those of one that it
    is computed from and whose shape it has, or else its first dimension of that size counts tokens
    if the value is computed from one that has such a dimension.
    """

    def __init__(
        self, graph: VulkanGraph, tokens: int, start: int = 0, longest: int | None = None
    ) -> None:
        self.graph = graph
        self.longest = longest if longest and longest > 1 else None
        self.tokens, self.start = tokens, start
        self._numbers: dict[int, int] = {}
        self._counts: dict[int, dict[int, int]] = {}  # along which dimensions, and how many
        for operator in graph.operators:
            if operator.kind == "sym_size" and operator.args[0] in graph.inputs:
                dim, shape = self._number(operator.args[1]), graph.tensor(operator.args[0]).shape
                if dim is not None and 0 <= dim < len(shape) and shape[dim] > 1:
                    self.longest = shape[dim]
                    break
        if self.longest is not None:
            for value_id in graph.inputs:
                self._count(value_id, tokens)
            for operator in graph.operators:
                self._follow(operator)

    def elements(self, value_id: int) -> int:
        """How many elements the tensor has in the call."""
        return math.prod(self._sizes(value_id))

    def nbytes(self, value_id: int) -> int:
        """The bytes of those elements."""
        tensor = self.graph.tensor(value_id)
        bound = math.prod(tensor.shape)
        return tensor.nbytes * self.elements(value_id) // bound if bound else 0

    def rows(self, value_id: int) -> int:
        """The rows of a tensor [..., rows, K]: what one call gives a linear."""
        shape = self.graph.tensor(value_id).shape
        return self.elements(value_id) // max(1, shape[-1]) if shape else 1

    def count(self, value_id: int) -> int:
        """How many tokens the tensor holds; 1 if it does not count them."""
        return next(iter(self._counts.get(value_id, {}).values()), 1)

    def is_whole(self, value_id: int) -> bool:
        """Whether the tensor has the sizes that the graph states."""
        return not self.axes(value_id)

    def axes(self, value_id: int) -> list[int]:
        """The dimensions along which the tensor has other sizes than the graph states."""
        stated = self.graph.tensor(value_id).shape
        return [dim for dim, n in enumerate(self._sizes(value_id)) if n != stated[dim]]

    def _sizes(self, value_id: int) -> list[int]:
        counts = self._counts.get(value_id, {})
        return [counts.get(dim, n) for dim, n in enumerate(self.graph.tensor(value_id).shape)]

    def _axis(self, tensor: Tensor) -> int | None:
        return next((dim for dim, size in enumerate(tensor.shape) if size == self.longest), None)

    def _count(self, value_id: int, tokens: int) -> None:
        value = self.graph.values[value_id]
        axis = self._axis(value) if isinstance(value, Tensor) else None
        if axis is not None:
            self._counts[value_id] = {axis: tokens}

    def _follow(self, operator: Operator) -> None:
        """Say what the results of `operator` have."""
        kind, args = operator.kind, operator.args
        if isinstance(self.graph.values[operator.out], SymInt):
            self._numbers[operator.out] = self._symbol(operator)
            return
        counts = [self.count(i) for i in self.graph.inputs_of(operator) if i in self._counts]
        if kind == "aten.slice_copy":
            sliced = self._sliced(operator)
            if sliced is not None:
                self._counts[operator.out] = self._counts.get(args[0], {}) | dict([sliced])
                return
        if counts and kind in _EXACT:
            with suppress(IndexError, TypeError, ValueError):  # of a damaged graph
                self._counts[operator.out] = self._exact_counts(operator)
                return
        if not counts or (kind == "aten.select_copy" and self._selects_token(args)):
            return
        alike = {
            self.graph.tensor(i).shape: self._counts[i]
            for i in self.graph.inputs_of(operator)
            if i in self._counts
        }
        for value_id in self.graph.outputs_of(operator):
            value = self.graph.values[value_id]
            if isinstance(value, Tensor) and value.shape in alike:
                self._counts[value_id] = alike[value.shape]
            else:
                self._count(value_id, counts[0])

    def _exact_counts(self, operator: Operator) -> dict[int, int]:
        sizes = zip(self._exact(operator), self.graph.tensor(operator.out).shape, strict=True)
        return {
            dim: size
            for dim, (size, bound) in enumerate(sizes)
            if size != bound or bound == self.longest
        }

    def _exact(self, operator: Operator) -> list[int]:
        """The sizes of the result of an operator of `_EXACT`."""
        args, values = operator.args, self.graph.values
        match operator.kind:
            case "aten.view_copy":
                return self._viewed(args[0], args[1])
            case "aten.permute_copy":
                sizes = self._sizes(args[0])
                return [sizes[dim] for dim in self.graph.plain(args[1])]
            case "aten.bmm":
                return [*self._sizes(args[0])[:-1], self._sizes(args[1])[-1]]
            case "aten.cat":
                parts, along = values[args[0]], self._number(args[1])
                if not isinstance(parts, ValueList) or along is None:
                    raise ValueError("a cat of no list")
                sizes = [self._sizes(part) for part in parts.items]
                whole = list(sizes[0])
                whole[along] = sum(each[along] for each in sizes)
                return whole
        rank = len(self.graph.tensor(operator.out).shape)
        given = [self._sizes(i) for i in args[:-1] if isinstance(values[i], Tensor)]
        padded = [[1] * (rank - len(sizes)) + sizes for sizes in given]
        return [max(sizes) for sizes in zip(*padded, strict=True)]

    def _viewed(self, x: int, size: int) -> list[int]:
        value = self.graph.values[size]
        if isinstance(value, ValueList):
            sizes = [self._number(item) for item in value.items]
        else:
            sizes = list(self.graph.plain(size))
        known = [number for number in sizes if number is not None]
        if len(known) < len(sizes) or known.count(-1) > 1:
            raise ValueError("a view of unknown sizes")
        rest = math.prod(number for number in known if number != -1)
        return [self.elements(x) // max(1, rest) if n == -1 else n for n in known]

    def _selects_token(self, args: tuple[int, ...]) -> bool:
        x = self.graph.tensor(args[0])
        axis = self._axis(x)
        return axis is not None and self._number(args[1]) in (axis, axis - len(x.shape))

    def _sliced(self, operator: Operator) -> tuple[int, int] | None:
        """Along which dimension, and how many, a slice with a computed end takes; None for one
        with fixed ends."""
        names = operator.named_args
        end_id = names.get("end", operator.out)
        if not isinstance(self.graph.values[end_id], SymInt):
            return None
        rank = len(self.graph.tensor(names["x"]).shape)
        dim, start = (self._number(names[name]) or 0 for name in ("dim", "start"))
        return dim % max(1, rank), max(0, (self._number(end_id) or 0) - start)

    def _symbol(self, operator: Operator) -> int:
        kind = operator.kind
        if kind == "sym_size":
            return self.tokens
        if kind == "et_vk.select_as_symint":
            return self.start
        a, b = (self._number(operator.args[place]) or 0 for place in (0, -2))
        match kind:
            case "sub":
                return a - b
            case "mul":
                return a * b
            case "floordiv":
                return a // b if b else 0
        return a + b

    def _number(self, value_id: int) -> int | None:
        value = self.graph.values[value_id]
        if isinstance(value, SymInt):
            return self._numbers.get(value_id, value.value)
        return value.value if isinstance(value, Plain) and isinstance(value.value, int) else None
