"""Reports the contents of a program: its linears, its bytes by kind, and waste."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from quatrain.program.container import Program
from quatrain.program.delegate import Delegate
from quatrain.program.delegate_call import takes_varying_sizes
from quatrain.program.delegate_places import delegate_places
from quatrain.program.external_constants import external_constants
from quatrain.program.inspect.dispatches import CallCost, call_costs
from quatrain.program.inspect.kv_cache import KvCache, find_kv_cache
from quatrain.program.inspect.linears import Linear, find_linears
from quatrain.program.inspect.sizes import Waste, bytes_by_kind, cache_values, find_waste
from quatrain.program.methods import CALL, CONTEXT
from quatrain.program.plan.row_lookup import table_text
from quatrain.program.vulkan.graph import Operator, Tensor, VulkanGraph


@dataclass(frozen=True)
class DelegateSummary:
    """One part of the program that a backend runs."""

    backend: str
    method: str
    operators: int | None  # None if the backend's format is not read
    bytes: int
    options: dict[str, str]


@dataclass(frozen=True)
class ProgramReport:
    """Everything `quatrain inspect` shows; `as_dict` is its JSON."""

    program: str
    bytes: int
    methods: list[str]
    metadata: dict[str, Any]  # as the program states it
    delegates: list[DelegateSummary]
    outside: dict[str, int]  # operators outside any delegate -> how often
    inputs: list[str]
    outputs: list[str]
    activation_dtype: str | None
    context_length: int | None
    context_from: str | None  # the constant method that says so, or "KV cache": its shape
    kv_cache: KvCache | None
    dynamic_shapes: bool
    layers: int
    experts: dict[int, int]  # of each layer with a mixture, all computed for every token
    jumps: int  # around what a call does not need, as experts that no token picks
    embedding: str | None
    external_constants: list[str]  # in a `.ptd` file
    embedding_layout: str | None  # of its result, such as 'width_packed in texture3d'
    operators: dict[str, int]
    calls: list[CallCost]  # a prompt, and the decode step after it
    linears: list[Linear]
    bytes_by_kind: dict[str, int]
    waste: list[Waste]

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON."""
        return asdict(self)

    @property
    def schemes(self) -> dict[str, int]:
        """How many linears compute in which scheme."""
        return dict(Counter(linear.scheme for linear in self.linears))


def inspect_program(program: Program) -> ProgramReport:
    """The report on `program`; without a Vulkan delegate it lists no linears. The memory of a call
    is reported only for a single delegate."""
    places = delegate_places(program)
    graphs, graph = [graph for _, graph in places], only_graph(program)
    parts = [(graph, _linears(place, graph)) for place, graph in places]
    linears = [
        replace(linear, name=place + linear.name)
        for (place, _), (_, found) in zip(places, parts, strict=True)
        for linear in found
    ]
    context, context_from = _context(program, graphs)
    return ProgramReport(
        program=str(program.path),
        bytes=len(program.data),
        methods=list(program.methods),
        metadata=program.stated,
        delegates=[_summary(delegate) for delegate in program.delegates],
        outside=program.calls_outside_delegates(),
        inputs=[_signature(graph, i) for i in graph.inputs] if graph else [],
        outputs=[_signature(graph, i) for i in graph.outputs] if graph else [],
        activation_dtype=activation_dtype(*graphs),
        context_length=context,
        context_from=context_from,
        kv_cache=find_kv_cache(program, graphs),
        dynamic_shapes=_dynamic(program, graphs),
        layers=len({linear.layer for linear in linears if linear.layer is not None}),
        experts=_experts(linears),
        jumps=sum(instruction.kind == "jump" for instruction in program.instructions),
        embedding=_embedding(program, graphs),
        external_constants=external_constants(program),
        embedding_layout=_embedding_layout(graphs),
        operators=dict(Counter(op.kind for each in graphs for op in each.operators).most_common()),
        calls=call_costs(graph) if graph else [],
        linears=linears,
        bytes_by_kind=bytes_by_kind(program, parts),
        waste=find_waste(program, parts) if parts else [],
    )


def _linears(place: str, graph: VulkanGraph) -> list[Linear]:
    """Those of the delegate at `place`; one of a method's several does not tell what they are."""
    found = find_linears(graph)
    if "delegate" not in place:
        return found
    return [
        replace(each, name=f"operator_{each.operator}", role="other", layer=None) for each in found
    ]


def _summary(delegate: Delegate) -> DelegateSummary:
    return DelegateSummary(
        backend=delegate.backend,
        method=delegate.method,
        operators=len(delegate.graph.operators) if delegate.graph else None,
        bytes=len(delegate.blob),
        options={key: value.hex() for key, value in delegate.compile_specs.items()},
    )


def only_graph(program: Program) -> VulkanGraph | None:
    """The graph of the program's Vulkan delegate; None if there is none, or several."""
    return program.graphs[0] if len(program.graphs) == 1 else None


def hidden_backends(report: ProgramReport) -> list[str]:
    """The backends whose delegates are not read."""
    return list(dict.fromkeys(d.backend for d in report.delegates if d.operators is None))


def backends_text(report: ProgramReport) -> str:
    """Such as '211 × XnnpackBackend'."""
    return counts_text(Counter(delegate.backend for delegate in report.delegates)) or "none"


def counts_text(counts: Mapping[str, int]) -> str:
    """Such as '30 × aten.mul, 1 × aten.add'."""
    return ", ".join(f"{count} × {name}" for name, count in counts.items())


def activation_dtype(*graphs: VulkanGraph) -> str | None:
    """The type most floating-point values are computed in."""
    counts = Counter(
        value.dtype
        for graph in graphs
        for value in graph.values
        if isinstance(value, Tensor) and value.constant is None and value.dtype.startswith("float")
    )
    return counts.most_common(1)[0][0] if counts else None


def _context(program: Program, graphs: list[VulkanGraph]) -> tuple[int | None, str | None]:
    """(how many tokens the KV cache holds, what says so): the metadata, else the cache's shape."""
    for name in (CONTEXT, CALL):
        if isinstance(program.stated.get(name), int):
            return program.stated[name], name
    caches = [graph.tensor(i) for graph in graphs for i in cache_values(graph)]
    known = caches and len(caches[0].shape) == 4
    return (caches[0].shape[1], "KV cache") if known else (None, None)


def _dynamic(program: Program, graphs: list[VulkanGraph]) -> bool:
    asked = any(any(d.compile_specs.get("require_dynamic_shapes", b"")) for d in program.delegates)
    symbolic = any(op.kind == "sym_size" for graph in graphs for op in graph.operators)
    varying = any(
        takes_varying_sizes(program.root, program.methods, index)
        for index in range(len(program.delegates))
    )
    return asked or symbolic or varying or program.metadata.get("enable_dynamic_shape") is True


def _experts(linears: list[Linear]) -> dict[int, int]:
    """How many experts each layer computes that has any."""
    found = {
        (linear.layer, block.partition(".")[0])
        for linear in linears
        if linear.layer is not None and (block := linear.name.partition(".experts.")[2])
    }
    return dict(sorted(Counter(layer for layer, _ in found).items()))


def _signature(graph: VulkanGraph, value_id: int) -> str:
    value = graph.values[value_id]
    if isinstance(value, Tensor):
        return f"{value.staging_dtype}{list(value.shape)}"
    return type(value).__name__


def _embeddings(graphs: list[VulkanGraph]) -> Iterator[tuple[VulkanGraph, Operator]]:
    for graph in graphs:
        for operator in graph.operators:
            if operator.kind in ("et_vk.embedding_q4gsw", "aten.embedding"):
                yield graph, operator


def _embedding(program: Program, graphs: list[VulkanGraph]) -> str | None:
    """The first table that a delegate looks rows up in, else the one that it is given rows of."""
    for graph, operator in _embeddings(graphs):
        names = operator.named_args
        weight = graph.tensor(names["weights"])
        if operator.kind == "aten.embedding" and weight.constant is not None:
            return f"{weight.dtype} {list(weight.shape)}"
        if operator.kind == "et_vk.embedding_q4gsw":
            shape, groups = weight.shape, graph.integer(names["group_size"])
            return f"int4 [{shape[0]}, {shape[-1] * 2}], groups of {groups}" if shape else None
    found = table_text(program) if len(graphs) == 1 else None
    return f"{found}, looked up on the CPU" if found else None


def _embedding_layout(graphs: list[VulkanGraph]) -> str | None:
    for graph, operator in _embeddings(graphs):
        result = graph.tensor(operator.out)
        return f"{result.layout} in {result.storage}"
    return None


def tensor_text(graph: VulkanGraph, value_id: int) -> str:
    """A value in a few characters, for lists of operators."""
    value = graph.values[value_id]
    if isinstance(value, Tensor):
        short = value.dtype.replace("float", "f").replace("uint", "u").replace("int", "i")
        mark = "·const" if value.constant is not None else ""
        return f"{short}[{'×'.join(map(str, value.shape))}]{mark}"
    return ""
