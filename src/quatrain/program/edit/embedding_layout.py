"""Gives embeddings the layout that their shader reads and writes.

ExecuTorch's exporter may lay the indices and the result of `aten.embedding` out height-packed
(it does for tables of 16,385 rows or more that are kept in textures). The runtime's shader takes
every texture for width-packed, so of each four tokens the first one's embedding serves all four:
the logits of any prompt of several tokens are garbage. Sources: `_passes/tag_memory_meta_pass.py`
of ExecuTorch 1.5; `ops/glsl/embedding_texture.glsl` of its runtime.
"""

from dataclasses import replace

from quatrain.program.container import Program
from quatrain.program.vulkan.graph import Operator, Plain, Tensor, VulkanGraph
from quatrain.program.vulkan.memory import assign_memory

_WIDTH_PACKED = "width_packed"


def repair_program(program: Program) -> int:
    """`repair_embedding_layouts` of every graph of `program`, in place; how many were repaired."""
    return sum(repair_embedding_layouts(graph) for graph in program.graphs)


def misread_embeddings(graph: VulkanGraph) -> list[Operator]:
    """The `aten.embedding` operators with indices or a result in a texture of another layout; but
    those channels-packed throughout, for which the runtime has a shader of its own."""
    embeddings = [each for each in graph.operators if each.kind == "aten.embedding"]
    return [
        operator
        for operator in embeddings
        if any(_has_unsupported_layout(graph, i) for i in _places(operator))
        and {graph.tensor(i).layout for i in _places(operator)} != {"channels_packed"}
    ]


def _places(operator: Operator) -> list[int]:
    return [operator.named_args[name] for name in ("indices", "out")]


def repair_embedding_layouts(graph: VulkanGraph) -> int:
    """Make the indices and the results of embeddings width-packed; how many were not.

    An operator that reads a result keeps the layout that it had, from a copy; one that is a copy
    into another layout already reads the new one.
    """
    misread = misread_embeddings(graph)
    for operator in misread:
        names = operator.named_args
        _set_layout(graph, names["indices"])
        before = graph.tensor(operator.out)
        _set_layout(graph, operator.out)
        if before.layout != graph.tensor(operator.out).layout:
            _copy_for_other_readers(graph, operator, before)
    return len(misread)


def _has_unsupported_layout(graph: VulkanGraph, value_id: int) -> bool:
    tensor = graph.tensor(value_id)
    return tensor.storage != "buffer" and tensor.layout not in (_WIDTH_PACKED, "default")


def _set_layout(graph: VulkanGraph, value_id: int) -> None:
    if _has_unsupported_layout(graph, value_id):
        graph.values[value_id] = replace(graph.tensor(value_id), layout=_WIDTH_PACKED)


def _copy_for_other_readers(graph: VulkanGraph, embedding: Operator, before: Tensor) -> None:
    """Give readers of the embedding's result, other than copies, a copy in the layout `before`."""
    readers = [
        operator
        for operator in graph.operators
        if embedding.out in operator.args[:-1] and operator.kind != "aten.clone"
    ]
    if not readers:
        return
    copy, memory_format = graph.add(replace(before, mem_obj_id=None)), graph.add(Plain("null"))
    for place, operator in enumerate(graph.operators):
        if any(operator is reader for reader in readers):
            args = tuple(copy if arg == embedding.out else arg for arg in operator.args)
            graph.operators[place] = replace(operator, args=args)
    place = next(i for i, operator in enumerate(graph.operators) if operator is embedding)
    clone = Operator("aten.clone.default", (embedding.out, memory_format, copy))
    graph.operators.insert(place + 1, clone)
    assign_memory(graph, [copy])
