"""Removes copies that do not change their input; each costs a dispatch on the phone.

ExecuTorch's exporter leaves views in the shape that the value has already (one a layer before the
feed-forward's last linear), and copies the rows of a rotary table from a texture into a buffer,
where the table could have lain in a buffer. A view that changes the rank has to stay: the runtime
sizes each result by its operator, and refuses another rank (`vTensor::virtual_resize`); in a
texture it moves the data besides.
"""

from dataclasses import replace

from quatrain.program.vulkan.def_use import DefUse
from quatrain.program.vulkan.graph import Operator, Plain, Tensor, ValueList, VulkanGraph
from quatrain.program.vulkan.memory import memory_conflicts, reuse_memory

_COPIES = ("aten.view_copy", "aten.clone")


def remove_redundant_copies(graph: VulkanGraph) -> None:
    """Remove from `graph` the views and clones whose result equals what they read, in shape, type
    and memory layout."""
    _move_tables_to_layout_of_readers(graph)
    substitute: dict[int, int] = {}
    for operator in graph.operators:
        if operator.kind in _COPIES and _changes_nothing(graph, operator):
            source = operator.args[0]
            substitute[operator.out] = substitute.get(source, source)
    if not substitute:
        return
    graph.operators = [
        replace(operator, args=tuple(substitute.get(i, i) for i in operator.args))
        for operator in graph.operators
        if operator.out not in substitute
    ]
    graph.values = [
        ValueList(tuple(substitute.get(i, i) for i in value.items))
        if isinstance(value, ValueList)
        else value
        for value in graph.values
    ]
    graph.outputs = [substitute.get(i, i) for i in graph.outputs]
    _separate_conflicting(graph, set(substitute.values()))


def _changes_nothing(graph: VulkanGraph, copy: Operator) -> bool:
    source, result = graph.values[copy.args[0]], graph.values[copy.out]
    if not isinstance(source, Tensor) or not isinstance(result, Tensor):
        return False
    if source.constant is not None or copy.args[0] in graph.inputs:
        return False
    same = replace(source, mem_obj_id=None) == replace(result, mem_obj_id=None)
    return same and (copy.kind != "aten.view_copy" or _free_sizes(graph, copy.args[1]) <= 1)


def _free_sizes(graph: VulkanGraph, shape: int) -> int:
    """How many sizes of a view's shape are not fixed: with one, the view cannot change any."""
    value = graph.values[shape]
    if isinstance(value, Plain):
        sizes = value.value if isinstance(value.value, tuple) else ()
    else:
        found = [graph.values[i] for i in graph.flat([shape])]
        sizes = [size.value if isinstance(size, Plain) else -1 for size in found]
    return sum(size == -1 for size in sizes)


def _move_tables_to_layout_of_readers(graph: VulkanGraph) -> None:
    """Give a constant, if some of its rows are sliced and copied, the layout of the copy."""
    def_use = DefUse(graph)
    moved = set()
    for copy in graph.operators:
        chain = _rows_of_table(def_use, copy)
        if chain is not None:
            result = graph.tensor(copy.out)
            for value_id in chain:
                tensor = graph.tensor(value_id)
                graph.values[value_id] = replace(
                    tensor, storage=result.storage, layout=result.layout, mem_obj_id=None
                )
            moved.add(chain[1])
    reuse_memory(graph, sorted(moved))


def _rows_of_table(def_use: DefUse, copy: Operator) -> tuple[int, int] | None:
    """A prepacked constant and a slice of it that only `copy` reads, by their values."""
    graph = def_use.graph
    rows = copy.args[0]
    if copy.kind != "aten.clone" or len(def_use.consumers[rows]) != 1:
        return None
    taken = def_use.producer.get(rows)
    if taken is None or graph.operators[taken].kind != "aten.slice_copy":
        return None
    table = graph.operators[taken].args[0]
    made = def_use.producer.get(table)
    if made is None or graph.operators[made].kind != "et_vk.prepack":
        return None
    same_type = graph.tensor(rows).dtype == graph.tensor(copy.out).dtype
    return (table, rows) if same_type and len(def_use.consumers[table]) == 1 else None


def _separate_conflicting(graph: VulkanGraph, value_ids: set[int]) -> None:
    """Give separate memory to those of `value_ids` whose memory other values need at the same
    time."""
    disturbed = value_ids & {value for pair in memory_conflicts(graph) for value in pair}
    for value_id in disturbed:
        graph.values[value_id] = replace(graph.tensor(value_id), mem_obj_id=None)
    reuse_memory(graph, sorted(disturbed))
