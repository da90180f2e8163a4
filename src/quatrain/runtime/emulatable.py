"""Finds the emulatable defects that change what a program computes."""

from quatrain.arithmetic import VULKAN_ARITHMETIC, Arithmetic
from quatrain.int4 import Scheme
from quatrain.program import Program
from quatrain.program.inspect.linears import find_linears
from quatrain.program.vulkan.linear_kernels import group_sums_are_right
from quatrain.runtime.defects import EmulatedDefect, is_misreadable_embedding

_OF_LINEARS = (
    EmulatedDefect.FLOAT_ZERO_POINTS,
    EmulatedDefect.INT8_ZERO_POINTS,
    EmulatedDefect.MORE_ROWS_THAN_SUMS,
)


def emulatable_defects(
    program: Program, arithmetic: Arithmetic = VULKAN_ARITHMETIC
) -> list[EmulatedDefect]:
    """The defects under which `program`, computed in `arithmetic`, may give something else; none
    of a program for the CPU, nor one of 8da4w linears where no activation is quantized."""
    found: list[EmulatedDefect] = []
    quantizes = arithmetic.least_quantized_rows is not None
    for graph in program.graphs:
        linears = find_linears(graph) if quantizes else []
        dynamic = [one for one in linears if one.scheme == Scheme.DYNAMIC_INT8]
        found += _OF_LINEARS if dynamic else ()
        if any(one.group_size and not group_sums_are_right(one.group_size) for one in dynamic):
            found.append(EmulatedDefect.GROUP_SUMS)
        if any(is_misreadable_embedding(graph, one) for one in graph.operators):
            found.append(EmulatedDefect.HEIGHT_PACKED_EMBEDDING)
    return list(dict.fromkeys(found))


def why_unchanged(
    program: Program,
    emulate: str | None,
    tokens: int | None = None,
    arithmetic: Arithmetic = VULKAN_ARITHMETIC,
) -> str | None:
    """Why `program` computes with the defect `emulate` what it does without, where it does, in a
    sentence; `tokens` of the longest prompt, None if that is not known."""
    if emulate is None:
        return None
    if emulate not in emulatable_defects(program, arithmetic):
        if emulate in emulatable_defects(program):
            return (
                f"{emulate} changes nothing of {program.path} as on {arithmetic.name}: no "
                "activation is quantized there"
            )
        return f"{emulate} changes nothing of {program.path}: no operator there has it"
    least = _shortest_prompt(program, EmulatedDefect(emulate))
    if tokens is not None and tokens < least:
        return f"{emulate} changes no prompt of fewer than {least} tokens; this one has {tokens}"
    return None


def _shortest_prompt(program: Program, defect: EmulatedDefect) -> int:
    """Of how many tokens a prompt is at least that `defect` may strike."""
    if defect != EmulatedDefect.MORE_ROWS_THAN_SUMS:
        return 2
    linears = [(graph, one) for graph in program.graphs for one in find_linears(graph)]
    rows = []
    for graph, one in linears:
        if one.scheme == Scheme.DYNAMIC_INT8:
            in_half = graph.tensor(graph.operators[one.operator].out).dtype == "float16"
            rows.append(one.in_features // (2 if in_half else 1))
    return min(rows) + 1
