"""Makes a program choose quantization parameters once per activation, and not in decode.

A linear of one row reads no parameters (`quatrain.arithmetic`), yet ExecuTorch's runtime chooses
them in every decode step, for nobody. It does leave out an operator on a tensor of no rows. So
each `choose_qparams` gets a slice of its activation, of all rows or, in a call of one token, of
none: in decode neither the slice nor the choice is dispatched, and a prompt gets the parameters
that it had. Sources: `DispatchNode::encode` and `choose_qparams_per_row` in
`backends/vulkan/runtime/graph/ops` of ExecuTorch 1.3 to 1.5.
"""

from dataclasses import dataclass, replace

from quatrain.program.edit.compact import remove_unread
from quatrain.program.edit.shared_results import share_qparams
from quatrain.program.vulkan.graph import Operator, Plain, SymInt, VulkanGraph
from quatrain.program.vulkan.linear_kernels import CHOOSE_QPARAMS
from quatrain.program.vulkan.memory import reuse_memory

SLICE = "aten.slice_copy"
# The runtime computes with integers since 1.3, the release that added these operators.
_SINCE_1_3 = {"et_vk.rms_norm", "et_vk.apply_rotary_emb_hf", "et_vk.embedding_q4gsw"}


@dataclass(frozen=True)
class _Tokens:
    """The tokens of a call: their number, the value `count` that the operator at index `place`
    makes, of at most `most`."""

    place: int
    count: int
    most: int


def reduce_qparams(graph: VulkanGraph) -> None:
    """Make `graph` choose quantization parameters once for all linears that read an activation, and
    not in calls of one token.

    The second is not done if all calls of a program have the same length, if parameters are chosen
    neither for a whole call nor for its last token, or if a runtime before 1.3 may run it.
    """
    choose_in_every_call(graph)
    share_qparams(graph)
    tokens = _tokens(graph)
    if tokens is None or not any(op.kind in _SINCE_1_3 for op in graph.operators):
        return
    rows = _rows(graph, tokens)
    if not rows:
        return
    values = _Values(graph)
    arithmetic, ends = _row_counts(values, tokens)
    operators, sliced = [], []
    for index, operator in enumerate(graph.operators):
        found = rows.get(operator)
        if found is not None:
            x = graph.tensor(operator.args[0])
            rows_of_prompts = graph.add(replace(x, mem_obj_id=None))
            sliced.append(rows_of_prompts)
            dim, one = values.integer(len(x.shape) - 2), values.integer(1)
            ids = (operator.args[0], dim, values.integer(0), ends[found], one, rows_of_prompts)
            operators.append(Operator(f"{SLICE}.Tensor", ids))
            operator = replace(operator, args=(rows_of_prompts, *operator.args[1:]))
        operators.append(operator)
        if index == tokens.place:
            operators += arithmetic
    graph.operators = operators
    remove_unread_qparams(graph)
    reuse_memory(graph, sliced)


def remove_unread_qparams(graph: VulkanGraph) -> None:
    """Remove what chooses parameters that no linear reads, the slices before it included."""
    remove_unread(graph, CHOOSE_QPARAMS, SLICE, "sub", "floordiv", "add")


def qparams_slices(graph: VulkanGraph) -> set[int]:
    """The indices of the slices that nothing but `choose_qparams` reads."""
    readers: dict[int, set[str]] = {}
    for operator in graph.operators:
        for value_id in operator.args[:-1]:
            readers.setdefault(value_id, set()).add(operator.kind)
    return {
        index
        for index, operator in enumerate(graph.operators)
        if operator.kind == SLICE and readers.get(operator.out) == {CHOOSE_QPARAMS}
    }


def choose_in_every_call(graph: VulkanGraph) -> None:
    """Let `graph` choose its parameters in calls of one token too, as `reduce_qparams` found it:
    without computing with integers, which runtimes before 1.3 do not."""
    slices = [graph.operators[index] for index in qparams_slices(graph)]
    whole = {operator.out: operator.args[0] for operator in slices}
    graph.operators = [
        replace(op, args=(whole.get(op.args[0], op.args[0]), *op.args[1:]))
        if op.kind == CHOOSE_QPARAMS
        else op
        for op in graph.operators
    ]
    remove_unread_qparams(graph)


def _tokens(graph: VulkanGraph) -> _Tokens | None:
    for index, operator in enumerate(graph.operators):
        if operator.kind == "sym_size" and operator.args[0] in graph.inputs:
            shape = graph.tensor(operator.args[0]).shape
            if graph.plain(operator.args[1]) == 1 and len(shape) > 1 and shape[1] > 1:
                return _Tokens(index, operator.out, shape[1])
    return None


def _rows(graph: VulkanGraph, tokens: _Tokens) -> dict[Operator, str]:
    """The `choose_qparams` that read "all" rows of a call, or "one"."""
    kinds = {
        (1, tokens.most): "all", (tokens.most,): "all", (1, 1): "one", (1,): "one",
    }  # fmt: skip
    found = {}
    for operator in graph.operators:
        if operator.kind == CHOOSE_QPARAMS:
            kind = kinds.get(graph.tensor(operator.args[0]).shape[:-1])
            if kind:
                found[operator] = kind
    return found


def _row_counts(values: "_Values", tokens: _Tokens) -> tuple[list[Operator], dict[str, int]]:
    """Operators, and what they make of a call of n tokens: "all" is 0 where n is 1, else n; "one"
    is 0 or 1."""
    one, two = values.integer(1), values.integer(2)
    more, single, every, last = (values.graph.add(SymInt()) for _ in range(4))
    return [
        Operator("add", (tokens.count, one, more)),
        Operator("floordiv", (two, more, single)),  # 1 of one token, else 0
        Operator("sub", (tokens.count, single, every)),
        Operator("sub", (one, single, last)),
    ], {"all": every, "one": last}


class _Values:
    """Adds values to a graph, a fixed integer once."""

    def __init__(self, graph: VulkanGraph) -> None:
        self.graph = graph
        self._integers: dict[int, int] = {}

    def integer(self, number: int) -> int:
        """The id of a value of `number`."""
        if number not in self._integers:
            self._integers[number] = self.graph.add(Plain("int", number))
        return self._integers[number]
