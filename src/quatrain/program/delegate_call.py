"""What a method hands to its Vulkan delegate, held against what the delegate's graph takes.

Sources: `VulkanBackend.cpp` (`execute`, `maybe_resize_output`), `ComputeGraph.cpp`
(`maybe_cast_and_copy_into_staging`) and `tensor_impl.cpp` of ExecuTorch 1.5, which refuse the calls
that do not fit.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from quatrain.program.delegate import VULKAN_BACKEND, Delegate
from quatrain.program.file.flatbuffer import Record
from quatrain.program.loaded_values import loaded_value_problems
from quatrain.program.methods import Method
from quatrain.program.scalar_types import NAMES
from quatrain.program.vulkan.graph import SymInt, Tensor, VulkanGraph
from quatrain.program.vulkan.graph_bytes import LAYOUTS, STORAGES

STATIC = 0  # of TensorShapeDynamism
# A method's type, and the graph's that the runtime converts it to or from.
_CONVERTED = {("int64", "int32"), ("float64", "float32"), ("float16", "float32")}
# Its graph gives the new state to nobody, and reads the first one in each call.
_AS_STATE = (
    "as ExecuTorch's exporter writes a model whose calls overwrite a state, such as its own LFM2"
)


def delegate_call_problems(
    delegates: Sequence[Delegate], root: Record, methods: Mapping[str, Method]
) -> list[str]:
    """What a runtime refuses of how a program calls its Vulkan delegates, in words for people.

    `root`: the program's table in its FlatBuffer, whose plans hold the values of `methods`.
    """
    return [
        problem
        for index, delegate in enumerate(delegates)
        if delegate.graph
        for problem in (*_of_backend(delegate), *_of_calls(root, methods, index, delegate.graph))
    ] + list(loaded_value_problems(root))


def takes_varying_sizes(root: Record, methods: Mapping[str, Method], index: int) -> bool:
    """Whether a method hands delegate `index` a tensor whose sizes may change with the call."""
    return any(
        value is not None and value.table == "Tensor" and value.shape_dynamism != STATIC
        for _, plan, args in _calls(root, methods, index)
        for value in (plan.values[given].val for given in args)
    )


def integers_handed_over(
    delegates: Sequence[Delegate], root: Record, methods: Mapping[str, Method]
) -> list[str]:
    """The integers that methods hand to their Vulkan delegates as such, not as tensors, and those
    that delegates give, in words for people: releases until 1.4 refuse both (`VulkanBackend.cpp`,
    `execute`)."""
    return [
        text
        for index, delegate in enumerate(delegates)
        if delegate.graph
        for name, plan, args in _calls(root, methods, index)
        for text in _integers_of(delegate.graph, name, plan, args)
    ]


def _integers_of(
    graph: VulkanGraph, method: str, plan: Record, args: tuple[int, ...]
) -> Iterator[str]:
    for value_id, given in zip(graph.inputs, args, strict=False):
        record = plan.values[given].val
        number = record is not None and record.table == "Int"
        if number and isinstance(graph.values[value_id], SymInt):
            yield f"value {value_id}, an integer that method {method} hands over"
    for value_id in graph.outputs:
        if isinstance(graph.values[value_id], SymInt):
            yield f"value {value_id}, an integer that the delegate gives method {method}"


def _of_backend(delegate: Delegate) -> Iterator[str]:
    if delegate.backend != VULKAN_BACKEND:
        yield f"its backend is called {delegate.backend or 'nothing'}, expected {VULKAN_BACKEND}"
    for name, known in (("storage_type_override", STORAGES), ("memory_layout_override", LAYOUTS)):
        given = delegate.compile_specs.get(name)
        if given is not None and (len(given) != 4 or int.from_bytes(given, "little") not in known):
            yield f"its {name} is {given.hex()}, expected 4 bytes of a number that there is"


def _of_calls(
    root: Record, methods: Mapping[str, Method], index: int, graph: VulkanGraph
) -> Iterator[str]:
    for name, plan, args in _calls(root, methods, index):
        takes = f"{len(graph.inputs)} inputs and {len(graph.outputs)} results"
        if len(args) != len(graph.inputs) + len(graph.outputs):
            fewer = len(args) < len(graph.inputs) + len(graph.outputs)
            state = f", {_AS_STATE}" if fewer and len(graph.outputs) > 1 else ""
            yield f"method {name} passes it {len(args)} values, but its graph has {takes}{state}"
            continue
        written = set(args[len(graph.inputs) :])
        records = [plan.values[given].val for given in args]
        if all(record is not None and record.table == "Null" for record in records):
            records = [None] * len(records)  # the method describes none of them
        ids = (*graph.inputs, *graph.outputs)
        for value_id, given, record in zip(ids, args, records, strict=True):
            problem = _why_unfit(graph.values[value_id], record, given in written)
            if problem:
                yield f"value {given} of method {name} has {problem}"


def _calls(
    root: Record, methods: Mapping[str, Method], index: int
) -> Iterator[tuple[str, Record, tuple[int, ...]]]:
    """The calls of delegate `index`: the method's name, its plan, and the values handed over."""
    for plan in root.execution_plan or ():
        method = methods[plan.name or ""]
        for each in method.instructions:
            if each.kind == "delegate" and each.target == index:
                yield method.name, plan, each.args


def _why_unfit(taken: object, given: Record | None, written: bool) -> str | None:
    """Why the method's value `given` does not fit the graph's `taken`; None if it does, or if the
    method does not describe it."""
    if not isinstance(taken, Tensor):
        return None
    if written and taken.constant is not None:
        return "a constant of its graph as its result, which is never written"
    if given is None:
        return None
    if given.table != "Tensor":
        return f"the type {given.table}, but its inputs and outputs there are tensors"
    sizes, needed = list(given.sizes or ()), list(taken.shape)
    if len(sizes) != len(needed):
        return f"the rank of {sizes}, but its graph has that of {needed}"
    if written and math.prod(sizes) < math.prod(needed):
        return f"room for {sizes}, but its graph gives {needed}"
    dtype, staged = NAMES.get(given.scalar_type or 0), taken.staging_dtype
    staged = taken.dtype if staged == "unset" else staged
    if dtype != staged and (dtype, staged) not in _CONVERTED:
        what = "gives" if written else "takes"
        return f"the type {dtype or given.scalar_type}, but its graph {what} {staged}"
    return None
