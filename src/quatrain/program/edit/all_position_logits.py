"""Makes a Vulkan program return the logits of every position instead of only the last.

A program for a phone takes the last token of a prompt before its output linear, since generation
needs no other. Measuring a text needs all of them; without this it would take a step a token.

An output linear is marked to compute rows one by one, as the phone does, and one in 8da4w becomes
weight-only, which it is for a single row (`quatrain.arithmetic`): for all rows of a text it would
quantize the inputs, or accumulate in float16.
"""

from dataclasses import replace

from quatrain.int4 import Scheme
from quatrain.program.edit.prefill_qparams import qparams_slices
from quatrain.program.edit.retarget import to_weight_only
from quatrain.program.inspect.linears import find_linears
from quatrain.program.vulkan.graph import Operator, Plain, VulkanGraph
from quatrain.program.vulkan.linear_kernels import CHOOSE_QPARAMS, INT4_LINEARS

# Operators that treat each token by itself, whatever the dimensions before the last.
_PER_TOKEN = {
    *INT4_LINEARS, CHOOSE_QPARAMS, "et_vk.rms_norm",
    "aten.linear", "aten.mul", "aten.div", "aten.tanh", "aten.clone",
}  # fmt: skip


def give_all_position_logits(graph: VulkanGraph) -> bool:
    """Edit `graph` so that its output is the logits [1, T, V] of all T tokens of a call.

    False, and nothing changed, unless it takes the last token of [1, T, D] and from there to
    its output treats each token by itself.
    """
    index = _last_token_taken(graph)
    if index is None:
        return False
    affected = _computed_from(graph, index)
    if affected is None:
        return False
    after = [linear for linear in find_linears(graph) if linear.operator > index]
    to_weight_only(graph, [linear for linear in after if linear.scheme == Scheme.DYNAMIC_INT8])
    index = _last_token_taken(graph) or 0  # what chose their parameters is gone
    select, tail = graph.operators[index], graph.operators[index + 1 :]
    affected &= {value for operator in tail for value in graph.outputs_of(operator)}
    every, length = select.args[0], graph.tensor(select.args[0]).shape[1]
    for value_id in affected:
        tensor = graph.tensor(value_id)
        shape = (tensor.shape[0], length, *tensor.shape[1:])
        graph.values[value_id] = replace(tensor, shape=shape)
    graph.operators[index:] = [
        replace(
            operator,
            args=tuple(every if arg == select.out else arg for arg in operator.args),
            row_by_row=operator.kind in INT4_LINEARS,
        )
        for operator in tail
    ]
    return True


def _computed_from(graph: VulkanGraph, place: int) -> set[int] | None:
    """What the operators after the one at `place` make of its result; None if one of them does not
    treat each token by itself."""
    affected = {graph.operators[place].out}
    slices = qparams_slices(graph)  # go with the linears that are made weight-only
    for index, operator in enumerate(graph.operators[place + 1 :], start=place + 1):
        if index in slices:
            affected.add(operator.out)
        elif affected.intersection(operator.args[:-1]):
            if not _is_per_token(graph, operator):
                return None
            affected.update(graph.outputs_of(operator))
    return affected


def _is_per_token(graph: VulkanGraph, operator: Operator) -> bool:
    if operator.kind == "aten.slice_copy":  # along the last dimension, whichever it will be
        return graph.values[operator.named_args["dim"]] == Plain("int", -1)
    return operator.kind in _PER_TOKEN


def _last_token_taken(graph: VulkanGraph) -> int | None:
    """The index of the last `select_copy`, if it is of [1, T, D] along T at -1."""
    for index in reversed(range(len(graph.operators))):
        operator = graph.operators[index]
        if operator.kind == "aten.select_copy":
            args = operator.named_args
            rank = len(graph.tensor(args["x"]).shape)
            return index if rank == 3 and _plain(graph, args) == (1, -1) else None
    return None


def _plain(graph: VulkanGraph, args: dict[str, int]) -> tuple:
    values = [graph.values[args[name]] for name in ("dim", "index")]
    return tuple(value.value if isinstance(value, Plain) else None for value in values)
