"""The trigger of products that read what lies behind a matrix's last column in a texel and multiply
it by 0: no number, or an infinite one, makes the whole row none.

Source: `matmul_fp_mat1_tile_load.glslh`, `permute_texture.glsl`, `concat_texture.glsl` and
`unary_op.glsl` of ExecuTorch 1.5; each form measured on its runtime, in memory filled with NaN.
"""

from enum import IntEnum
from math import prod

from quatrain.program import Operator, Program, Tensor, VulkanGraph
from quatrain.targets.triggers.occurrence import (
    Occurrence,
    Occurrences,
    fixed_value,
    longest_call,
)

# Operator -> where its first factor is among its arguments.
_PRODUCTS = {"aten.mm": 0, "aten.bmm": 0, "aten.linear": 0, "aten.addmm": 1}
_INFINITE_AT_ZERO = {"aten.log10", "aten.rsqrt"}
_OF_EACH_LANE = {
    "aten.neg", "aten.abs", "aten.sqrt", "aten.add", "aten.sub", "aten.mul", "et_vk.rms_norm",
    "aten.native_layer_norm",
}  # fmt: skip
_COPIES = {
    "aten.clone", "aten._to_copy", "dim_order_ops._to_dim_order_copy", "aten.squeeze_copy",
    "aten.unsqueeze_copy",
}  # fmt: skip
_BOUNDED = {"aten.exp", "aten.sigmoid", "aten.tanh", "aten.clamp", "aten.relu", "aten.gelu"}
_ZEROS = {
    "aten.view_copy", "aten.slice_copy", "aten.select_copy", "aten.expand_copy", "aten.repeat",
    "aten.split_with_sizes_copy", "aten.constant_pad_nd", "aten.div", "et_vk.prepack",
}  # fmt: skip


class Padding(IntEnum):
    """What lies behind the last column, the worst last."""

    ZERO = 0
    FINITE = 1
    UNWRITTEN = 2
    INFINITE = 3


def products_of_padding(program: Program, graph: VulkanGraph) -> Occurrences:
    """Products in textures over a number of terms that is not a multiple of 4, whose first factor
    has something else than finite numbers behind its last column."""
    behind = _PaddingOfValues(graph, longest_call(program, graph))
    for index, operator in enumerate(graph.operators):
        if operator.kind in _PRODUCTS:
            factor = operator.args[_PRODUCTS[operator.kind]]
            x, padding = graph.tensor(factor), behind.of(factor)
            ends_within = x.shape and (x.shape[-1] % 4 or behind.changes(factor))
            if x.storage != "buffer" and padding > Padding.FINITE and ends_within:
                text = f"operator {index}, {operator.kind}: over {x.shape[-1]} terms"
                sure = padding == Padding.INFINITE
                yield Occurrence(text, None if sure else "possible")
        behind.add(operator)


class _PaddingOfValues:
    """What lies behind the last column of each value, and which dimensions change with the call, as
    far as the operators were added in order."""

    def __init__(self, graph: VulkanGraph, longest: int) -> None:
        self._graph = graph
        self._padding: dict[int, Padding] = {}
        self._changing: dict[int, set[int]] = {}
        for value in graph.inputs:
            shape = self._shape(value)
            first = {1} if len(shape) > 1 and shape[1] == longest else set()
            self._changing[value] = self._asked_for(value) or first

    def _asked_for(self, value: int) -> set[int]:
        """The dimensions of `value` whose size an operator asks for."""
        rank = max(len(self._shape(value)), 1)
        asked = [op for op in self._graph.operators if op.kind == "sym_size"]
        dims = [fixed_value(self._graph, op, 1) for op in asked if op.args[0] == value]
        return {dim % rank for dim in dims if isinstance(dim, int)}

    def of(self, value: int) -> Padding:
        return self._padding.get(value, Padding.ZERO)

    def changes(self, value: int) -> bool:
        """Whether the last dimension does."""
        return len(self._shape(value)) - 1 in self._changing.get(value, ())

    def add(self, operator: Operator) -> None:
        tensors = [i for i in self._graph.inputs_of(operator) if self._is_tensor(i)]
        for out in self._graph.outputs_of(operator):
            if self._is_tensor(out):
                self._changing[out] = self._changing_dims(operator, tensors, out)
                self._padding[out] = self._behind(operator, tensors, out)

    def _behind(self, operator: Operator, tensors: list[int], out: int) -> Padding:
        kind, worst = operator.kind, max(map(self.of, tensors), default=Padding.ZERO)
        if kind in _INFINITE_AT_ZERO and worst == Padding.ZERO:
            return Padding.INFINITE
        if kind in _OF_EACH_LANE:
            lanes = [self._padding_read(value, out) for value in tensors]
            is_zero = kind == "aten.mul" and max(lanes, default=worst) < Padding.UNWRITTEN
            return (min if is_zero else max)(lanes, default=worst)
        if kind in _COPIES:
            return worst if self._has_same_layout(tensors[0], out) else Padding.ZERO
        if kind in ("aten.bmm", "aten.mm") and len(tensors) > 1:
            return self.of(tensors[1])
        if kind == "aten.permute_copy":
            return self._permuted(operator, out)
        if kind == "aten.cat":
            return self._after_cat(tensors, out, worst)
        if kind in _ZEROS:
            return Padding.ZERO
        unwritten = kind in _BOUNDED and worst == Padding.UNWRITTEN
        return Padding.UNWRITTEN if unwritten else Padding.FINITE

    def _padding_read(self, value: int, out: int) -> Padding:
        """What of `value` is read behind the last column of `out`: of one column, that column."""
        alike = self._shape(value)[-1:] == self._shape(out)[-1:]
        return self.of(value) if alike else Padding.FINITE

    def _permuted(self, operator: Operator, out: int) -> Padding:
        order = list(fixed_value(self._graph, operator, 1) or ())
        if order[-1:] in ([-1], [len(order) - 1]):
            return self.of(operator.args[0])
        return Padding.UNWRITTEN if self.changes(out) else Padding.FINITE

    def _after_cat(self, tensors: list[int], out: int, worst: Padding) -> Padding:
        along_last = self._shape(tensors[0])[-1:] != self._shape(out)[-1:] if tensors else False
        return Padding.UNWRITTEN if along_last else worst

    def _changing_dims(self, operator: Operator, tensors: list[int], out: int) -> set[int]:
        if operator.kind == "aten.permute_copy":
            order = fixed_value(self._graph, operator, 1) or ()
            changing = self._changing.get(operator.args[0], ())
            return {place for place, dim in enumerate(order) if dim % len(order) in changing}
        if operator.kind in ("aten.bmm", "aten.mm") and len(tensors) > 1:
            last = len(self._shape(out)) - 1
            first, second = (self._changing.get(i, set()) for i in tensors[:2])
            return (first - {last}) | (second & {last})
        return {place for value in tensors for place in self._changing_dims_kept(value, out)}

    def _changing_dims_kept(self, value: int, out: int) -> list[int]:
        """The dimensions of `out` that are a changing one of `value`, by what comes before them."""
        shape, made = self._shape(value), self._shape(out)
        return [
            place
            for dim in self._changing.get(value, ())
            for place in range(len(made))
            if made[place] == shape[dim] and prod(made[:place]) == prod(shape[:dim])
        ]

    def _is_tensor(self, value: int) -> bool:
        return isinstance(self._graph.values[value], Tensor)

    def _shape(self, value: int) -> tuple[int, ...]:
        found = self._graph.values[value]
        return found.shape if isinstance(found, Tensor) else ()

    def _has_same_layout(self, value: int, out: int) -> bool:
        one, other = self._graph.tensor(value), self._graph.tensor(out)
        placed = (one.storage, one.layout) == (other.storage, other.layout)
        return placed and one.shape[-1:] == other.shape[-1:]
