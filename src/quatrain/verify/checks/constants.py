"""Compares all of a program's constants with its checkpoint's."""

from collections.abc import Callable

from quatrain.backbone.model import Backbone
from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.meta.pruned_output import with_kept_output
from quatrain.linear.int4 import Int4Linear
from quatrain.program import Program, VulkanGraph
from quatrain.program.inspect.linears import find_linears
from quatrain.verify.checks.embedding_tables import check_tables
from quatrain.verify.checks.other_tensors import check_others, round_as_stored
from quatrain.verify.checks.packed_constants import PackedCheck, check_packed
from quatrain.verify.checks.reading_order import check_order, check_read, names_read
from quatrain.verify.checks.stored_constants import check_stored
from quatrain.verify.checks.stored_data import StoredData
from quatrain.verify.program_info import is_quatrains


def compare_constants(
    program: Program,
    graph: VulkanGraph | None,
    checkpoint: Checkpoint,
    backbone: Backbone,
    advance: Callable[[float], None],
) -> tuple[list[PackedCheck], list[str], bool]:
    """Compare linears, embeddings and all other tensors of `backbone`, that of `checkpoint`, with
    what `program` stores, of a Vulkan one in `graph`. What another exporter rounded to float16 for
    XNNPACK is then so in `backbone` too.

    Returns the checks; the names of what cannot be compared, since another exporter may have it in
    a form that is not known here; and whether all tensors of `backbone` are then as they are stored
    for XNNPACK.
    """
    strict, stored, unknown = is_quatrains(program), StoredData(program, graph), []
    operators: dict[int, str] = {}
    if graph:
        linears = (name for name, one in backbone.named_modules() if isinstance(one, Int4Linear))
        names = [name.removesuffix(".base") for name in linears]
        tensors = with_kept_output(checkpoint.tensors, checkpoint.config)
        checks = check_packed(graph, tensors, checkpoint.group_size, names)
        packed = [one.operator for one in find_linears(graph) if one.group_size is not None]
        operators = {at: one.name for at, one in zip(packed, checks, strict=False)}
    else:
        checks = check_stored(stored, backbone, strict, lambda part: advance(part / 2))
        unknown += [] if checks else ["its quantized linears"]
    tables, other_tables = check_tables(
        program, graph, backbone, strict, lambda part: advance((1 + part) / 2)
    )
    others, folded = check_others(stored, backbone, strict, biases=graph is not None)
    are_stored = not unknown and not other_tables
    if not strict and not graph:
        are_stored &= round_as_stored(stored, backbone)
    if strict:
        read = list(names_read(program, graph, stored, operators))
        others += check_order(read, backbone) + check_read(read, stored)
    return checks + tables + others, unknown + other_tables + folded, are_stored
