"""Converts the int4 linears of a program from one activation scheme to the other.

Both kernels read the same packed weights and scales. Weight-only needs nothing else; 8da4w
also needs each row's scale and zero point, which `choose_qparams_affine` computes as the
program runs, and the sum of each group of weights, which is computed here.
Source: `executorch/backends/vulkan/patterns/quantized_linear.py`.
"""

from collections.abc import Iterable
from dataclasses import replace

from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.program.container import Program
from quatrain.program.edit.compact import compact
from quatrain.program.edit.convertible import (
    require_packable_inputs,
    require_right_groups,
    require_separate_rows,
    require_types_as_read,
    require_whole_channels,
    require_zero_points_as_read,
)
from quatrain.program.edit.group_strides import add_sums
from quatrain.program.edit.prefill_qparams import reduce_qparams, remove_unread_qparams
from quatrain.program.edit.selection import Selection, select_linears
from quatrain.program.inspect.linears import Linear
from quatrain.program.vulkan.graph import Operator, Plain, Tensor, ValueList, VulkanGraph
from quatrain.program.vulkan.linear_kernels import (
    CHOOSE_QPARAMS,
    DYNAMIC_LINEAR,
    WEIGHT_ONLY_LINEAR,
)
from quatrain.program.vulkan.memory import assign_memory

_UNCHOSEN = 0  # any value: a placeholder for parameters that are chosen later
ZERO_POINT_DTYPES = ("int8", "float16", "float32")


def parse_scheme(scheme: Scheme | str, zero_point_dtype: str | None) -> Scheme:
    """The scheme called so; `InputError` for an unknown one, or one without such zero points."""
    _require(scheme, tuple(Scheme), "linear scheme")
    _require(zero_point_dtype or "int8", ZERO_POINT_DTYPES, "zero-point type")
    if zero_point_dtype and scheme == Scheme.WEIGHT_ONLY:
        raise InputError(
            f"--zero-point-dtype {zero_point_dtype}: weight-only linears have no zero points; "
            "it goes with --linear-scheme 8da4w"
        )
    return Scheme(scheme)


def retarget(
    program: Program,
    scheme: Scheme | str,
    selection: Selection | None = None,
    zero_point_dtype: str | None = None,
) -> list[Linear]:
    """Change the selected int4 linears of `program`, of all its Vulkan delegates, in place, to
    `scheme`.

    zero_point_dtype: the type of the activations' zero points in 8da4w, also for linears that are
        already 8da4w; None keeps existing ones, and means int8 for new ones. ExecuTorch's own
        export of this scheme writes int8, as does `quatrain export` in fp32.

    Returns the changed linears in their old form. Raises `InputError` if a layer or a pattern names
    nothing, nothing is selected or a method is several delegates, whose layers are not known, the
    program has no int4 linears, one that would become 8da4w has groups that its kernel sums
    wrongly, weights that are not filled up to a multiple of 8 inputs, several rows in a buffer of
    output channels that are not multiples of 4, or scales in another type than its results, zero
    points would be of a floating-point type that activations do not have, or one that would become
    weight-only has output channels that are not multiples of 4.
    """
    scheme = parse_scheme(scheme, zero_point_dtype)
    changes = [
        _Change(program, graph, selected, scheme, zero_point_dtype)
        for graph, selected in select_linears(program, selection or Selection())
    ]
    return [linear for change in changes for linear in change.make()]


class _Change:
    """What becomes of the `selected` linears of a graph. Raises as `retarget`, ahead of `make`, so
    that nothing is changed where another graph's are refused."""

    def __init__(
        self,
        program: Program,
        graph: VulkanGraph,
        selected: list[Linear],
        scheme: Scheme,
        zero_point_dtype: str | None,
    ) -> None:
        self._program, self._graph, self._scheme = program, graph, scheme
        self._dtype = zero_point_dtype or "int8"
        self._changing = [linear for linear in selected if linear.scheme != scheme]
        self._retyped = [
            linear
            for linear in selected
            if zero_point_dtype and linear.zero_points not in (None, zero_point_dtype)
        ]
        if scheme == Scheme.WEIGHT_ONLY:
            require_whole_channels(program, graph, self._changing)
        else:
            require_right_groups(program, self._changing)
            require_packable_inputs(program, graph, self._changing)
            require_separate_rows(program, graph, self._changing)
            require_types_as_read(program, graph, self._changing)
            given = [*self._changing, *self._retyped]
            require_zero_points_as_read(program, graph, given, self._dtype)

    def make(self) -> list[Linear]:
        """Change the graph; returns the changed linears in their old form."""
        graph = self._graph
        if self._scheme == Scheme.WEIGHT_ONLY:
            to_weight_only(graph, self._changing)
        else:
            _to_dynamic(self._program, graph, self._changing)
            shared = _set_zero_points(graph, self._retyped, self._dtype)
            if self._changing or shared:
                _choose_qparams_of(graph, [*self._changing, *shared], self._dtype)
        compact(graph)
        return self._changing + self._retyped


def _require(value: str, known: tuple[str, ...], what: str) -> None:
    if value not in known:
        raise InputError(f"{value!r} is no {what}; choose one of {', '.join(known)}")


def to_weight_only(graph: VulkanGraph, linears: Iterable[Linear]) -> None:
    """Make 8da4w `linears` of `graph` weight-only, and choose no parameters that they read."""
    for linear in linears:
        operator = graph.operators[linear.operator]
        names = operator.named_args
        kept = ("x", "weights", "weight_scales", "group_size", "bias", "out")
        graph.operators[linear.operator] = replace(
            operator,
            name=operator.name.replace(DYNAMIC_LINEAR, WEIGHT_ONLY_LINEAR),
            args=tuple(names[name] for name in kept),
        )
    remove_unread_qparams(graph)


def _to_dynamic(program: Program, graph: VulkanGraph, linears: Iterable[Linear]) -> None:
    """Make weight-only `linears` 8da4w, their parameters left to `_choose_qparams_of`."""
    for linear in linears:
        operator = graph.operators[linear.operator]
        names = operator.named_args
        sums = add_sums(program, graph, operator)
        args = (names["x"], _UNCHOSEN, _UNCHOSEN, names["weights"], sums)
        rest = ("weight_scales", "group_size", "bias", "out")
        graph.operators[linear.operator] = replace(
            operator,
            name=operator.name.replace(WEIGHT_ONLY_LINEAR, DYNAMIC_LINEAR),
            args=args + tuple(names[name] for name in rest),
        )


def _set_zero_points(graph: VulkanGraph, linears: Iterable[Linear], dtype: str) -> list[Linear]:
    """Give 8da4w `linears` zero points of `dtype`, except those whose zero points are also read by
    another linear; returns these."""
    places = {linear.operator: linear for linear in linears}
    readers: dict[int, list[int]] = {}
    for index, operator in enumerate(graph.operators):
        if operator.kind == DYNAMIC_LINEAR:
            readers.setdefault(operator.named_args["input_zero_points"], []).append(index)
    left = []
    for value_id, found in readers.items():
        ours = [places[index] for index in found if index in places]
        if len(ours) == len(found):
            zero_point = graph.tensor(value_id)
            graph.values[value_id] = replace(zero_point, dtype=dtype, staging_dtype=dtype)
        else:
            left += ours
    return left


def _choose_qparams_of(
    graph: VulkanGraph, linears: Iterable[Linear], zero_point_dtype: str
) -> None:
    """Let 8da4w `linears` read parameters with zero points of that type, chosen once for all that
    read one activation."""
    places = {linear.operator for linear in linears}
    operators, chosen = [], []
    for index, operator in enumerate(graph.operators):
        if index in places:
            choose = _choose_qparams(graph, operator.args[0], zero_point_dtype)
            scale, zero_point = graph.outputs_of(choose)
            chosen += [scale, zero_point]
            operators.append(choose)
            operator = replace(
                operator, args=(operator.args[0], scale, zero_point, *operator.args[3:])
            )
        operators.append(operator)
    graph.operators = operators
    remove_unread_qparams(graph)
    assign_memory(graph, chosen)
    reduce_qparams(graph)


def _choose_qparams(graph: VulkanGraph, x_id: int, zero_point_dtype: str) -> Operator:
    """A `choose_qparams_affine` of x [..., K], one scale and zero point per row [...]."""
    x = graph.tensor(x_id)
    if len(x.shape) < 2:
        raise InputError(f"an int4 linear reads a tensor of shape {list(x.shape)}, without rows")
    rows = x.shape[:-1]
    scale = Tensor(
        x.dtype, rows, storage="texture3d", layout="width_packed", staging_dtype=x.staging_dtype
    )
    zero_point = replace(scale, dtype=zero_point_dtype, staging_dtype=zero_point_dtype)
    null, no = graph.add(Plain("null")), graph.add(Plain("bool", False))
    return Operator(
        f"{CHOOSE_QPARAMS}.default",
        (
            x_id,
            graph.add(Plain("string", "ASYMMETRIC")),
            graph.add(Plain("int_list", (*(1 for _ in rows), x.shape[-1]))),
            null,  # target dtype: the runtime has only int8
            graph.add(Plain("int", -128)),
            graph.add(Plain("int", 127)),
            null,  # eps: torchao's default
            null,
            null,
            no,
            graph.add(ValueList((graph.add(scale), graph.add(zero_point)))),
        ),
    )
