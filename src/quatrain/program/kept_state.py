"""The state of a text that a method keeps between calls in its planned memory.

The compiler writes a buffer back by `aten.copy_` as a call ends. Of a KV cache that is written by
index that is the cache itself with the call's rows in it, so that a later call may go back to any
position. Of a convolution, a recurrence or a ring it is what only the last tokens left.
"""

from quatrain.program.container import Program

_WRITE_BACK = "aten.copy_"
# What writes a part of its first argument, and gives all of it. `aten.slice_scatter`, which can
# too, may write all of a state.
_INTO = {"aten.index_put", "aten.index_copy", "aten.scatter"}


def overwrites_state(program: Program, method: str = "forward") -> bool:
    """Whether a call of `method` of `program` overwrites what it kept of the text before."""
    written_into: dict[int, int] = {}  # value -> the one that it is with a part written
    for step in program.methods[method].instructions if method in program.methods else ():
        name = str(step.target)
        if step.kind != "kernel":
            continue
        if name == _WRITE_BACK:
            buffer, result = step.args[:2]
            if written_into.get(result) != buffer:
                return True
        elif name.rpartition(".")[0] in _INTO:
            written_into[step.args[-1]] = step.args[0]
    return False


def may_go_on(program: Program) -> bool:
    """Whether a text at position 0 may go on with the state of the text before it: not in
    Quatrain's programs, which say that they keep state, and begin anew there."""
    own = bool(program.metadata.get("quatrain_keeps_last_inputs"))
    return not own and overwrites_state(program)
