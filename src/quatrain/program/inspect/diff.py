"""Compares two programs: properties, operators, linears and constants."""

from dataclasses import asdict, dataclass, field
from typing import Any

from quatrain.program.container import Program
from quatrain.program.inspect.graph_diff import Difference, GraphDiff, GraphSide, same_bytes
from quatrain.program.inspect.linears import Linear, weight_id
from quatrain.program.inspect.report import (
    ProgramReport,
    backends_text,
    counts_text,
    hidden_backends,
    inspect_program,
    only_graph,
)

__all__ = ["Difference", "ProgramDiff", "diff_programs"]


@dataclass
class ProgramDiff:
    """Everything that differs between two programs; empty lists where nothing does.

    `operators` and `outside` count kinds, in the delegate and outside it; `calls` are the types
    and fixed arguments of each operator in turn, `constants` what they hold. `hidden`: the
    backends whose insides are not read, and so only compared byte by byte. `external_constants`:
    the names of those in a `.ptd` file beside either program, which are all that is compared.
    """

    summary: list[Difference]
    outside: list[Difference]
    bytes_by_kind: list[Difference]
    hidden: list[str]
    external_constants: list[str]
    operators: list[Difference] = field(default_factory=list)
    calls: list[Difference] = field(default_factory=list)
    linears: list[Difference] = field(default_factory=list)
    constants: list[Difference] = field(default_factory=list)
    equal_weights: int = 0
    compared_weights: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The differences as plain data, ready for JSON, where `calls` are the "steps"."""
        fields = {"steps" if name == "calls" else name: v for name, v in asdict(self).items()}
        return fields | {"same": self.same}

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        found = (self.summary, self.outside, self.bytes_by_kind, self.operators)
        return not any((*found, self.calls, self.linears, self.constants))


def diff_programs(first: Program, second: Program) -> ProgramDiff:
    """The differences between two programs; operators are matched by layer and role.

    Constants are equal where their bytes are. What is not a Vulkan graph is compared as bytes.
    """
    one, two = inspect_program(first), inspect_program(second)
    diff = ProgramDiff(
        summary=_summary(one, two),
        outside=_by_key(one.outside, two.outside),
        bytes_by_kind=_by_key(one.bytes_by_kind, two.bytes_by_kind),
        hidden=sorted({*hidden_backends(one), *hidden_backends(two)}),
        external_constants=list(dict.fromkeys([*one.external_constants, *two.external_constants])),
    )
    a, b = only_graph(first), only_graph(second)
    if a and b:
        sides = GraphSide(first, a, one.linears), GraphSide(second, b, two.linears)
        diff.operators = _by_key(one.operators, two.operators)
        _compare_graphs(diff, GraphDiff(*sides))
    if backends_text(one) == backends_text(two):
        diff.summary += _compare_rest(first, second)
    if not diff.outside and _calls(first) != _calls(second):
        diff.summary.append(
            Difference("calls outside the delegates", "these", "other values, arguments or order")
        )
    return diff


def _summary(first: ProgramReport, second: ProgramReport) -> list[Difference]:
    rows = {
        "bytes": (first.bytes, second.bytes),
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


def _compare_graphs(diff: ProgramDiff, graphs: GraphDiff) -> None:
    diff.calls, diff.constants = graphs.operators, graphs.constants
    one = {linear.name: linear for linear in graphs.first.linears}
    two = {linear.name: linear for linear in graphs.second.linears}
    diff.linears = [
        Difference(name, _text(one.get(name)), _text(two.get(name)))
        for name in {**one, **two}
        if _text(one.get(name)) != _text(two.get(name))
    ]
    both = [
        (_weights(graphs.first, one[n]), _weights(graphs.second, two[n])) for n in one if n in two
    ]
    held = [pair for pair in both if graphs.both_hold(*pair)]
    diff.compared_weights = len(held)
    diff.equal_weights = sum(graphs.same_constant(*pair) for pair in held)
    if not graphs.same_order():
        if not diff.calls:
            diff.summary.append(Difference("operators", "this order", "another order"))
    elif not graphs.same_connections():
        other = "connected in another way"
        diff.summary.append(Difference("operators", "connected as here", other))
    elif not graphs.same_memory():
        diff.summary.append(Difference("memory of values", "this plan", "another plan"))


def _weights(side: GraphSide, linear: Linear) -> int:
    return weight_id(side.graph.operators[linear.operator])


def _compare_rest(first: Program, second: Program) -> list[Difference]:
    """Delegates that are not read, and data that no graph refers to; where both have some."""
    found = []
    one, two = _unaccounted_bytes(first), _unaccounted_bytes(second)
    for what in [what for what in one if one[what] and two[what]]:
        a, b = one[what], two[what]
        other = sum(not (name in a and same_bytes(a[name], b[name])) for name in b)
        first.release_memory()
        second.release_memory()
        if other or len(a) != len(b):
            found.append(Difference(what, str(len(a)), f"{len(b)}, {other} with other bytes"))
    return found


def _unaccounted_bytes(program: Program) -> dict[str, dict[str, memoryview]]:
    """The bytes that no graph accounts for, by what they are and by name."""
    graph = only_graph(program)
    read = {constant.key for constant in graph.constants} if graph else set()
    segments = [program.root.constant_segment, *(program.root.mutable_data_segments or ())]
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
            str(index): program.segment(record.segment_index)
            for index, record in enumerate(segments)
            if record is not None and record.offsets
        },
    }


def _calls(program: Program) -> list[Any]:
    """What each method does around and with its delegates, where delegates are stored left out."""
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
