"""Triggers of what a program's methods do with their delegates."""

from quatrain.program import Program, VulkanGraph
from quatrain.program.row_lookup import work_beside_delegate
from quatrain.targets.triggers.occurrence import Occurrence, Where


def work_outside_delegate(program: Program, graph: VulkanGraph, where: Where) -> list[Occurrence]:
    """Operators outside the delegate, but for rows of a table that it is given, or more than one
    delegate call."""
    outside = work_beside_delegate(program)
    occurrences = [Occurrence(f"{name}, {count} times") for name, count in outside.items()]
    calls = sum(instruction.kind == "delegate" for instruction in program.instructions)
    return occurrences + ([Occurrence(f"{calls} delegate calls")] if calls > 1 else [])


def delegate_calls_refused(program: Program, graph: VulkanGraph, where: Where) -> list[Occurrence]:
    """Calls that hand the delegate other values than its graph takes."""
    return [Occurrence(problem) for problem in program.call_problems]
