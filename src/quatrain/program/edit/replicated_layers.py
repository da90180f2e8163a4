"""Extends the Vulkan graph of a backbone of three layers to any number of layers.

All layers of a backbone compute the same with other constants. ExecuTorch lowers three of
them: the first, which may also compute what all share, the last, after which memory is free
for other things, and one between, which is then copied for every layer between, with new value
ids and the names of its own constants. The result equals, operator for operator, what lowering
every layer gives.
"""

from dataclasses import dataclass, replace

from quatrain.errors import QuatrainError
from quatrain.program import Constant, Operator, Plain, Tensor, Value, ValueList, VulkanGraph
from quatrain.program.edit.constant_source import ConstantSource
from quatrain.program.vulkan.memory import memory_conflicts, unused_memory

# Fixed values that a graph holds once however often they are used.
_SHARED_KINDS = ("int", "double", "bool")


NOT_AS_RECEIVED = "a layer's result is of another form, or at another place, than its input"


class IrregularGraph(QuatrainError):
    """The lowered layers are not copies of each other, so one cannot be replicated."""


@dataclass(frozen=True)
class _Span:
    """Operators first .. end - 1 of a graph: one layer, whose input is the value `entry`."""

    first: int
    end: int
    entry: int


def replicate_layers(graph: VulkanGraph, depth: int) -> VulkanGraph:
    """The graph of `depth` layers (3 or more) from a graph of three.

    The keys of its constants are those of `ConstantSource`s, which say to which layer one belongs;
    in the result they name each layer's own. Raises `IrregularGraph` if the second layer does not
    hand on its result as it received its input, or hands on more.
    """
    middle, last = _middle_and_last(graph)
    _require_steady(graph, middle, last)
    before, prepacked = _without_prepacks_of_layers(graph, graph.operators[: middle.first])
    result = replace(
        graph,
        operators=before,
        values=list(graph.values),
        constants=list(graph.constants),
    )
    entry = middle.entry
    for layer in range(1, depth - 1):
        copier = _Copier(result, {middle.entry: entry}, 1, layer, prepacked)
        for operator in graph.operators[middle.first : middle.end]:
            result.operators.append(copier.copy(operator))
        entry = copier.place(last.entry)
    copier = _Copier(result, {last.entry: entry}, 2, depth - 1, prepacked)
    result.operators += [copier.copy(operator) for operator in graph.operators[last.first :]]
    result.outputs = [copier.place(value_id) for value_id in graph.outputs]
    conflicts = memory_conflicts(result)
    if conflicts:
        raise IrregularGraph(f"replicated layers share memory while in use: values {conflicts[0]}")
    return canonical(result)


def canonical(graph: VulkanGraph) -> VulkanGraph:
    """The same graph with values, constants and memory objects numbered in order of first use.

    Two graphs that compute the same, by the same operators in the same memory, become equal.
    """
    order: dict[int, int] = {}

    def visit(value_id: int) -> None:
        value = graph.values[value_id]
        if isinstance(value, ValueList):
            for item in value.items:
                order.setdefault(item, len(order))
        order.setdefault(value_id, len(order))

    for value_id in graph.inputs:
        visit(value_id)
    for operator in graph.operators:
        for value_id in operator.args:
            visit(value_id)
    constants: dict[int, int] = {}
    memory: dict[int, int] = {}
    values = [_renumbered(graph.values[old], order, constants, memory) for old in order]
    return replace(
        graph,
        operators=[
            replace(op, args=tuple(order[i] for i in op.args), node_id=0) for op in graph.operators
        ],
        values=values,
        inputs=[order[i] for i in graph.inputs],
        outputs=[order[i] for i in graph.outputs],
        constants=[graph.constants[old] for old in constants],
    )


def _renumbered(
    value: Value, order: dict[int, int], constants: dict[int, int], memory: dict[int, int]
) -> Value:
    if isinstance(value, ValueList):
        return ValueList(tuple(order[i] for i in value.items))
    if isinstance(value, Tensor) and value.constant is not None:
        value = replace(value, constant=constants.setdefault(value.constant, len(constants)))
    if isinstance(value, Tensor) and value.mem_obj_id is not None:
        value = replace(value, mem_obj_id=memory.setdefault(value.mem_obj_id, len(memory)))
    return value


def _middle_and_last(graph: VulkanGraph) -> tuple[_Span, _Span]:
    """The second and third layer: each begins with the norm of its attention's input, or, if it has
    none, with what first reads that."""
    entries = [_entry_of(graph, f"layers.{layer}") for layer in (1, 2)]
    starts = [next(i for i, op in enumerate(graph.operators) if entry in op.args[:-1])
              for entry in entries]  # fmt: skip
    end = _user_of(graph, "norm.weight")
    return _Span(starts[0], starts[1], entries[0]), _Span(starts[1], end, entries[1])


def _entry_of(graph: VulkanGraph, layer: str) -> int:
    """The value that `layer` receives."""
    try:
        norm = _user_of(graph, f"{layer}.attention_norm.weight")
    except IrregularGraph:
        norm = _user_of(graph, f"{layer}.attention.wq.weight")
    return graph.operators[norm].args[0]


def _user_of(graph: VulkanGraph, tensor: str) -> int:
    for index, operator in enumerate(graph.operators):
        for value_id in operator.args:
            source = _source(graph, value_id)
            if source is not None and source.tensor == tensor:
                return index
    raise IrregularGraph(f"no operator of the lowered graph uses {tensor}")


def _source(graph: VulkanGraph, value_id: int) -> ConstantSource | None:
    """The source of a constant of `graph`, None for any other value."""
    key = graph.constant_key(value_id)
    return None if key is None else ConstantSource.from_key(key)


def _require_steady(graph: VulkanGraph, middle: _Span, last: _Span) -> None:
    """A layer's input and output must be alike, memory included, for layers to follow on, and
    nothing else that it computes may be used after it."""
    if graph.values[middle.entry] != graph.values[last.entry]:
        raise IrregularGraph(NOT_AS_RECEIVED)
    computed = {
        value_id
        for operator in graph.operators[middle.first : middle.end]
        for value_id in graph.outputs_of(operator)
    }
    for operator in graph.operators[last.first :]:
        for value_id in computed.intersection(operator.args) - {last.entry}:
            raise IrregularGraph(f"{operator.name} after a layer uses its inner value {value_id}")


def _without_prepacks_of_layers(
    graph: VulkanGraph, operators: list[Operator]
) -> tuple[list[Operator], dict[int, Operator]]:
    """(`operators`, which run before the second layer, without those that prepack constants of it
    and of the third; those operators, by the value they make). Each replicated layer prepacks its
    own.

    Raises `IrregularGraph` if another operator there uses such a constant.
    """
    kept, prepacked = [], {}
    for operator in operators:
        sources = [_source(graph, value_id) for value_id in operator.args]
        if not any(source and source.layer in (1, 2) for source in sources):
            kept.append(operator)
        elif operator.kind == "et_vk.prepack":
            prepacked[operator.out] = operator
        else:
            raise IrregularGraph(f"{operator.name} uses a layer's constant before the layer")
    return kept, prepacked


class _Copier:
    """Copies operators into `graph`, with the values that only they use.

    `mapped` gives the replacement of a value of the original; constants of layer `original` become
    those of `layer`. `prepacked`: the operators that prepack constants of layers, by the value they
    make; one is copied if its value is used.
    """

    def __init__(
        self,
        graph: VulkanGraph,
        mapped: dict[int, int],
        original: int,
        layer: int,
        prepacked: dict[int, Operator],
    ):
        self.graph = graph
        self.mapped = mapped
        self.original = original
        self.layer = layer
        self.prepacked = dict(prepacked)
        self.computed: set[int] = set()

    def copy(self, operator: Operator) -> Operator:
        """A copy of `operator`; its outputs are new values."""
        self.computed.update(self.graph.outputs_of(operator))
        return replace(operator, args=tuple(self.place(i) for i in operator.args))

    def place(self, value_id: int) -> int:
        """The id that the value `value_id` of the original has in the copy."""
        if value_id in self.prepacked:
            self.graph.operators.append(self.copy(self.prepacked.pop(value_id)))
        if value_id not in self.mapped:
            self.mapped[value_id] = self._copied(value_id, self.graph.values[value_id])
        return self.mapped[value_id]

    def _copied(self, value_id: int, value: Value) -> int:
        if isinstance(value, ValueList):
            return self.graph.add(ValueList(tuple(self.place(i) for i in value.items)))
        if isinstance(value, Plain) and value.kind not in _SHARED_KINDS:
            return self.graph.add(value)
        if isinstance(value, Tensor) and value.constant is not None:
            return self._constant(value_id, value, value.constant)
        if value_id in self.computed:
            return self.graph.add(value)
        return value_id  # made before: the position, the rotary tables' rows

    def _constant(self, value_id: int, value: Tensor, index: int) -> int:
        source = _source(self.graph, value_id)
        if source is None or source.layer != self.original:
            return value_id
        own = source.moved(self.original, self.layer)
        self.graph.constants.append(Constant(self.graph.constants[index].nbytes, own.key))
        copied = replace(value, constant=len(self.graph.constants) - 1)
        if value.mem_obj_id is not None:  # a KV cache has memory of its own in every layer
            copied = replace(copied, mem_obj_id=unused_memory(self.graph))
        return self.graph.add(copied)
