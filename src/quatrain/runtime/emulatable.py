"""Which of the defects that can be emulated change what a program computes."""

from quatrain.int4 import Scheme
from quatrain.program import Program
from quatrain.program.inspect.linears import find_linears
from quatrain.program.linear_kernels import group_sums_are_right
from quatrain.runtime.defects import EmulatedDefect, is_misreadable_embedding

_OF_LINEARS = (
    EmulatedDefect.FLOAT_ZERO_POINTS,
    EmulatedDefect.INT8_ZERO_POINTS,
    EmulatedDefect.MORE_ROWS_THAN_SUMS,
)


def emulatable_defects(program: Program) -> list[EmulatedDefect]:
    """The defects under which `program` may compute something else; none of one for the CPU."""
    found: list[EmulatedDefect] = []
    for graph in program.graphs:
        dynamic = [one for one in find_linears(graph) if one.scheme == Scheme.DYNAMIC_INT8]
        found += _OF_LINEARS if dynamic else ()
        if any(one.group_size and not group_sums_are_right(one.group_size) for one in dynamic):
            found.append(EmulatedDefect.GROUP_SUMS)
        if any(is_misreadable_embedding(graph, one) for one in graph.operators):
            found.append(EmulatedDefect.HEIGHT_PACKED_EMBEDDING)
    return list(dict.fromkeys(found))
