"""Merges equal delegates into one.

A runtime keeps a state for each delegate of a program. That of one which every layer calls stays in
the processor's caches from call to call; that of a layer's own comes from memory, in each step.
"""

from collections.abc import Hashable
from typing import TypeVar

from quatrain.program.file.flatbuffer import Record

Data = TypeVar("Data", bound=Hashable)


def share_delegates(plan: Record, data: list[Data]) -> list[Data]:
    """Merge equal delegates of the decoded `plan`, in place, comparing their `data`. Returns the
    data of those that are left."""
    place = {each: index for index, each in enumerate(dict.fromkeys(data))}
    for chain in plan.chains:
        for instruction in chain.instructions:
            call = instruction.instr_args
            if call.table == "DelegateCall":
                call.delegate_index = place[data[call.delegate_index]]
    plan.delegates = [plan.delegates[data.index(each)] for each in place]
    return list(place)
