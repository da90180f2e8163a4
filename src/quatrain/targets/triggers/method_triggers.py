"""Triggers of what a program's methods do with their delegates."""

from quatrain.program import Program
from quatrain.program.inspect.sizes import cache_values
from quatrain.program.plan.method_memory import methods_with_own_state
from quatrain.program.plan.row_lookup import work_beside_delegate
from quatrain.targets.triggers.occurrence import Occurrence, Occurrences

# Words of methods' names that run in turn: those of ExecuTorch's text runner, `prefill_forward` and
# `kv_forward` of its Qualcomm exporter. Its runner of other programs calls `forward` alone.
_OF_PROMPTS, _OF_STEPS, _OF_BOTH = {"prefill"}, {"decode", "kv"}, "forward"


def work_outside_delegate(program: Program) -> Occurrences:
    """Operators outside the delegate of a method, but for rows of a table that it is given, or more
    than one delegate call of a method."""
    for name, count in work_beside_delegate(program).items():
        yield Occurrence(f"{name}, {count} times")
    for method in program.methods.values():
        calls = sum(instruction.kind == "delegate" for instruction in method.instructions)
        if calls > 1:
            yield Occurrence(f"{method.name}: {calls} delegate calls")


def caches_of_each_method(program: Program) -> Occurrences:
    """KV caches in the delegates of several methods, or in their memory: each has its own. Two that
    take turns in one text are certain to read what the other never wrote; so does `forward`, where
    an app calls it beside one that is for prompts or for steps."""
    keeping = {each.method for each in program.delegates if each.graph and cache_values(each.graph)}
    keeping |= methods_with_own_state(program)
    if len(keeping) < 2:
        return []
    words = {word for name in keeping for word in name.split("_")}
    certainty = "possible"
    if words & _OF_PROMPTS and words & _OF_STEPS:
        certainty = None
    elif words & (_OF_PROMPTS | _OF_STEPS) and _OF_BOTH in keeping:
        certainty = "conditional"
    return [Occurrence(f"methods {', '.join(sorted(keeping))}", certainty)]


def delegate_calls_refused(program: Program) -> Occurrences:
    """Calls that hand the delegate other values than its graph takes."""
    return [Occurrence(problem) for problem in program.call_problems]
