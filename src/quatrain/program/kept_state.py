"""The state of a text that a method keeps between calls in its planned memory.

The compiler writes a buffer back by `aten.copy_` as a call ends. Of a KV cache that is written by
index that is the cache itself with the call's rows in it, so that a later call may go back to any
position. Of a convolution, a recurrence or a ring it is what only the last tokens left.
"""

from quatrain.program.container import Program
from quatrain.program.methods import Instruction

_WRITE_BACK = "aten.copy_"
# What writes a part of its first argument, and gives all of it. `aten.slice_scatter`, which can
# too, may write all of a state.
_INTO = {"aten.index_put", "aten.index_copy", "aten.scatter"}
_LISTS = ("TensorList", "OptionalTensorList")
_SETS = ("aten.copy.", "aten.fill.")  # their first argument to the second


def overwrites_state(program: Program, method: str = "forward") -> bool:
    """Whether a call of `method` of `program` overwrites what it kept of the text before and reads
    in the next call."""
    steps = program.methods[method].instructions if method in program.methods else []
    written_into: dict[int, int] = {}  # value -> the one that it is with a part written
    overwritten = set[int]()
    for step in steps:
        name = str(step.target)
        if name == _WRITE_BACK:
            buffer, result = step.args[:2]
            if written_into.get(result) != buffer:
                overwritten.add(buffer)
        elif name.rpartition(".")[0] in _INTO:
            written_into[step.args[-1]] = step.args[0]
    plans = program.root.execution_plan or ()
    lists = {
        index: value.val.items
        for plan in plans
        for index, value in enumerate(plan.values or ())
        if plan.name == method and value.val is not None and value.val.table in _LISTS
    }
    return any(
        not overwritten.isdisjoint((value, *lists.get(value, ())))
        for step in steps
        for value in _read(step)
    )


def _read(step: Instruction) -> tuple[int, ...]:
    """The values that the instruction reads, and perhaps those that it writes; not one that it
    only sets, such as a count of tokens that each call begins with its position."""
    name = str(step.target)
    if name == _WRITE_BACK:
        return step.args[1:2]
    return step.args[1:] if name.startswith(_SETS) else step.args


def may_go_on(program: Program) -> bool:
    """Whether a text at position 0 may go on with the state of the text before it: not in
    Quatrain's programs, which say that they keep state, and begin anew there."""
    own = bool(program.metadata.get("quatrain_keeps_last_inputs"))
    return not own and overwrites_state(program)
