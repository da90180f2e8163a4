"""The linears of a program's graph, by layer and role, inferred from the graph.

A program does not say which linear is which. The shape of the computation does: an attention
operator's query, key and value come from three linears, its result goes into a fourth; likewise the
inputs and the result of a short convolution; a gated activation (`silu(gate(x)) * up(x)`) names the
other three; the linear that reaches the program's output without meeting another is the output
layer (see `linear_roles`).
"""

from dataclasses import dataclass

from quatrain.int4 import CHANNELS_TOGETHER
from quatrain.program.inspect.linear_roles import LinearRole, LinearRoles
from quatrain.program.vulkan.def_use import DefUse
from quatrain.program.vulkan.graph import Operator, Plain, Tensor, VulkanGraph
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS, LINEAR_SCHEMES, LinearScheme


@dataclass(frozen=True)
class Linear:
    """One linear: `operator` is its index in the graph, `name` as in Meta's checkpoints.

    `out_features` without padding channels that were added for the kernel.
    `scheme`: what it computes in; `group_size` is None if scales are not grouped. `zero_points` is
    the type of an 8da4w linear's activations' zero points. `bytes` counts its constants as they are
    stored; `weights_key` is its weight's key in the program's named data, equal for equal weights.
    """

    operator: int
    name: str
    layer: int | None
    role: str
    kernel: str
    scheme: LinearScheme
    out_features: int
    in_features: int
    group_size: int | None
    has_bias: bool
    zero_points: str | None
    bytes: int
    weights_key: str | None


def find_linears(graph: VulkanGraph) -> list[Linear]:
    """Every linear of `graph`, in the order in which they run."""
    def_use = DefUse(graph)
    indices = [i for i, op in enumerate(graph.operators) if _is_linear(graph, op)]
    roles = LinearRoles(def_use, set(indices))
    return [_linear(def_use, index, roles.of(index)) for index in indices]


def _is_linear(graph: VulkanGraph, operator: Operator) -> bool:
    """Whether `operator` is a matrix product with a constant weight."""
    if operator.kind in INT4_LINEARS:
        return True
    if operator.kind not in LINEAR_SCHEMES:
        return False
    is_constant = graph.stored(weight_id(operator)) is not None
    return is_constant or operator.kind not in ("aten.mm", "aten.addmm")


def weight_id(operator: Operator) -> int:
    """The value id of a linear's weight."""
    names = operator.named_args
    named = [names[name] for name in ("weights", "b") if name in names]
    return (*named, *operator.args[1:2], *operator.args)[0]


def result_id(def_use: DefUse, linear: int) -> int:
    """The value id of what the linear at index `linear` gives, without the channels by which
    `quatrain export` fills int4 linears up to a multiple of 4: the slice that cuts them off, of
    the result or of its copy into another storage."""
    graph = def_use.graph
    operator = graph.operators[linear]
    cut = _only_reader(def_use, operator.out)
    if cut is not None and cut.kind == "aten.clone":
        cut = _only_reader(def_use, cut.out)
    if operator.kind not in INT4_LINEARS or cut is None or cut.kind != "aten.slice_copy":
        return operator.out
    whole, kept = graph.tensor(operator.out).shape, graph.tensor(cut.out).shape
    start = graph.values[cut.named_args.get("start", cut.out)]  # the result: no such argument
    from_first = isinstance(start, Plain) and start.value in (None, 0)
    padding = whole[-1] - kept[-1] if whole[:-1] == kept[:-1] and whole else 0
    return cut.out if from_first and 0 < padding < CHANNELS_TOGETHER else operator.out


def _only_reader(def_use: DefUse, value_id: int) -> Operator | None:
    """The one operator that reads a value; None if there are more, or none."""
    users = def_use.consumers.get(value_id, ())
    return def_use.graph.operators[users[0]] if len(users) == 1 else None


def _linear(def_use: DefUse, index: int, role: LinearRole) -> Linear:
    graph = def_use.graph
    operator = graph.operators[index]
    names = operator.named_args
    weight = graph.tensor(weight_id(operator))
    x = graph.tensor(names.get("x", names.get("a", operator.args[0])))
    out = graph.tensor(result_id(def_use, index))
    bias = names.get("bias")
    constants = {
        value.constant: graph.constants[value.constant].nbytes
        for value in (graph.values[i] for i in operator.args)
        if isinstance(value, Tensor) and value.constant is not None
    }
    group = graph.integer(names["group_size"]) if "group_size" in names else None
    zero_points = names.get("input_zero_points")
    return Linear(
        operator=index,
        name=role.name or f"operator_{index}",
        layer=role.layer,
        role=f"adaptor of {role.role}" if role.of_adaptor else role.role,
        kernel=operator.kind,
        scheme=LINEAR_SCHEMES[operator.kind],
        out_features=(out.shape[-1:] or weight.shape[:1] or (0,))[0],
        in_features=x.shape[-1] if x.shape else 0,
        group_size=group,
        has_bias=bias is not None and isinstance(graph.values[bias], Tensor),
        zero_points=graph.tensor(zero_points).dtype if zero_points is not None else None,
        bytes=sum(constants.values()),
        weights_key=graph.constant_key(weight_id(operator)),
    )
