"""What differs between two programs: what they are, their operators, linears and constants."""

from dataclasses import asdict, dataclass, field
from typing import Any

from quatrain.program.container import Program
from quatrain.program.inspect.graph_diff import Difference, GraphDiff, GraphSide, same_bytes
from quatrain.program.inspect.linears import Linear, weight_id
from quatrain.program.inspect.report import (
    Report,
    backends_text,
    counts_text,
    describe,
    hidden_backends,
    only_graph,
)

__all__ = ["Comparison", "Difference", "compare"]


@dataclass
class Comparison:
    """Everything that differs between two programs; empty lists where nothing does.

    `operators` and `outside` count kinds, in the delegate and outside it; `steps` are the
    operators' types and fixed arguments, by place, `constants` what they hold. `hidden`:
    the backends whose insides are not read, and so only compared byte by byte.
    """

    summary: list[Difference]
    outside: list[Difference]
    bytes_by_kind: list[Difference]
    hidden: list[str]
    operators: list[Difference] = field(default_factory=list)
    steps: list[Difference] = field(default_factory=list)
    linears: list[Difference] = field(default_factory=list)
    constants: list[Difference] = field(default_factory=list)
    equal_weights: int = 0
    compared_weights: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The comparison as plain data, ready for JSON."""
        return asdict(self) | {"same": self.same}

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        found = (self.summary, self.outside, self.bytes_by_kind, self.operators)
        return not any((*found, self.steps, self.linears, self.constants))


def compare(first: Program, second: Program) -> Comparison:
    """The differences between two programs; operators are matched by layer and role.

    Constants are equal where their bytes are. What is not a Vulkan graph is compared as bytes.
    """
    one, two = describe(first), describe(second)
    comparison = Comparison(
        summary=_summary(one, two),
        outside=_by_key(one.outside, two.outside),
        bytes_by_kind=_by_key(one.bytes_by_kind, two.bytes_by_kind),
        hidden=sorted({*hidden_backends(one), *hidden_backends(two)}),
    )
    graphs = only_graph(first), only_graph(second)
    if graphs[0] and graphs[1]:
        sides = GraphSide(first, graphs[0], one.linears), GraphSide(second, graphs[1], two.linears)
        comparison.operators = _by_key(one.operators, two.operators)
        _compare_graphs(comparison, GraphDiff(*sides))
    if backends_text(one) == backends_text(two):
        comparison.summary += _compare_rest(first, second)
    if not comparison.outside and _calls(first) != _calls(second):
        comparison.summary.append(
            Difference("calls outside the delegates", "these", "other values, arguments or order")
        )
    return comparison


def _summary(first: Report, second: Report) -> list[Difference]:
    rows = {
        "bytes": (first.nbytes, second.nbytes),
        "backends": (backends_text(first), backends_text(second)),
        "context length": (first.context_length, second.context_length),
        "dynamic shapes": (first.dynamic_shapes, second.dynamic_shapes),
    }
    if first.activation_dtype and second.activation_dtype:  # both have a graph that is read
        rows |= {
            "inputs": (", ".join(first.inputs), ", ".join(second.inputs)),
            "outputs": (", ".join(first.outputs), ", ".join(second.outputs)),
            "activation dtype": (first.activation_dtype, second.activation_dtype),
            "layers": (first.layers, second.layers),
            "embedding": (first.embedding, second.embedding),
            "linear schemes": (counts_text(first.schemes), counts_text(second.schemes)),
        }
    for name in {**first.metadata, **second.metadata}:
        rows[name] = (first.metadata.get(name), second.metadata.get(name))
    return [_difference(what, *pair) for what, pair in rows.items() if pair[0] != pair[1]]


def _compare_graphs(comparison: Comparison, steps: GraphDiff) -> None:
    comparison.steps, comparison.constants = steps.operators, steps.constants
    one = {linear.name: linear for linear in steps.first.linears}
    two = {linear.name: linear for linear in steps.second.linears}
    comparison.linears = [
        Difference(name, _text(one.get(name)), _text(two.get(name)))
        for name in {**one, **two}
        if _text(one.get(name)) != _text(two.get(name))
    ]
    both = [(one[name], two[name]) for name in one if name in two]
    comparison.compared_weights = len(both)
    comparison.equal_weights = sum(_same_weights(steps, *pair) for pair in both)
    if not steps.same_order():
        if not comparison.steps:
            comparison.summary.append(Difference("operators", "this order", "another order"))
    elif not steps.same_connections():
        other = "connected in another way"
        comparison.summary.append(Difference("operators", "connected as here", other))
    elif not steps.same_memory():
        comparison.summary.append(Difference("memory of values", "this plan", "another plan"))


def _same_weights(steps: GraphDiff, first: Linear, second: Linear) -> bool:
    one = weight_id(steps.first.graph.operators[first.operator])
    two = weight_id(steps.second.graph.operators[second.operator])
    return steps.same_constant(one, two)


def _compare_rest(first: Program, second: Program) -> list[Difference]:
    """Delegates that are not read, and data that no graph refers to; where both have some."""
    found = []
    one, two = _rest(first), _rest(second)
    for what in [what for what in one if one[what] and two[what]]:
        a, b = one[what], two[what]
        other = sum(not (name in a and same_bytes(a[name], b[name])) for name in b)
        first.release_memory()
        second.release_memory()
        if other or len(a) != len(b):
            found.append(Difference(what, str(len(a)), f"{len(b)}, {other} with other bytes"))
    return found


def _rest(program: Program) -> dict[str, dict[str, memoryview]]:
    """The bytes that no graph accounts for, by what they are and by name."""
    graph = only_graph(program)
    read = {constant.key for constant in graph.constants} if graph else set()
    places = [program.root.constant_segment, *(program.root.mutable_data_segments or ())]
    return {
        "delegates that are not read": {
            str(index): delegate.blob
            for index, delegate in enumerate(program.delegates)
            if delegate.graph is not graph or graph is None
        },
        "data of the delegates": {
            key: program.named_bytes(key) for key in program.named_data if key not in read
        },
        "data outside the delegates": {
            str(index): program.segment(place.segment_index)
            for index, place in enumerate(places)
            if place is not None and place.offsets
        },
    }


def _calls(program: Program) -> list[Any]:
    """What each method does around and with its delegates, the delegates' places left out."""
    return [
        (
            (plan.name, plan.values, plan.inputs, plan.outputs, plan.chains, plan.operators),
            [(delegate.id, delegate.compile_specs) for delegate in plan.delegates or ()],
        )
        for plan in program.root.execution_plan or ()
        if plan.name not in program.metadata
    ]


def _difference(what: str, first: Any, second: Any) -> Difference:
    return Difference(what, str(first), str(second))


def _by_key(first: dict[str, int], second: dict[str, int]) -> list[Difference]:
    return [
        _difference(key, first.get(key, 0), second.get(key, 0))
        for key in {**first, **second}
        if first.get(key, 0) != second.get(key, 0)
    ]


def _text(linear: Linear | None) -> str:
    if linear is None:
        return "absent"
    group = f", groups of {linear.group_size}" if linear.group_size else ""
    zeros = f", {linear.zero_points} zero points" if linear.zero_points else ""
    bias = ", bias" if linear.has_bias else ""
    shape = f"{linear.out_features}×{linear.in_features}"
    return f"{linear.scheme} {shape}{group}{zeros}{bias}"
