"""Table rows that a program reads on the CPU and passes to its Vulkan delegate.

So it is with a table too large for GPU memory: an embedding for each layer (Gemma 3n and 4), and in
the programs of ExecuTorch's exporter a table of more than 128 MiB in floating point, or in int8.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from quatrain.errors import InputError
from quatrain.program.container import Program
from quatrain.program.file.flatbuffer import Record
from quatrain.program.loaded_values import is_external
from quatrain.program.methods import Instruction, Method
from quatrain.program.plan.row_tables import indices_of, is_lookup, table_of
from quatrain.program.scalar_types import NAMES


class RowLookup:
    """The lookup ahead of the delegate of `program`, by the instruction `call`.

    Attributes:
        result: The method's value that the rows become.
        table: What they are rows of.

    Raises:
        InputError: As `table_of`; where the rows are not those of an input of the method.
    """

    def __init__(self, program: Program, call: Instruction) -> None:
        self._path = program.path
        plan = _plan(program)
        self.result = call.args[-1]
        self.table = table_of(program, _values(program), call)
        if indices_of(call) not in plan.inputs:
            raise InputError(
                f"{self._path}: looks up rows of something else than an input of its method"
            )
        self._tokens = plan.inputs.index(indices_of(call))

    def rows(self, inputs: Sequence[Any]) -> np.ndarray:
        """Those [..., width] of the token ids [...] among `inputs` of the method. Raises
        `InputError` if one has no row."""
        tokens = np.asarray(inputs[self._tokens])
        outside = tokens[(tokens < 0) | (tokens >= len(self.table))]
        if outside.size:
            raise InputError(
                f"token {int(outside[0])} is outside the table of {self._path}, which has "
                f"{len(self.table)} rows; is the tokenizer another model's?"
            )
        return self.table.rows(tokens)


def row_lookup(program: Program) -> RowLookup | None:
    """The lookup of rows that the method of the only delegate of `program` begins with, if it does.
    Raises as `RowLookup`."""
    call = _lookup(program)
    return RowLookup(program, call) if call else None


def table_text(program: Program) -> str | None:
    """What that lookup's table is, for people; of one that cannot be read, how it is stored."""
    call = _lookup(program)
    if call is None:
        return None
    try:
        return str(table_of(program, _values(program), call))
    except InputError:
        stored = _values(program)[call.args[0]]
        where = "in a separate .ptd file" if is_external(stored) else "which is not read"
        dtype, sizes = getattr(stored, "scalar_type", None), getattr(stored, "sizes", None)
        return f"{NAMES.get(dtype or 0, dtype)} {list(sizes or ())} {where}"


def work_beside_delegate(program: Program) -> dict[str, int]:
    """The operators outside of any delegate, in methods that have delegates, and how often each is
    called, except a lookup of rows that are passed to a method's only delegate."""
    found: Counter[str] = Counter()
    for method in program.methods.values():
        kernels = [each for each in method.instructions if each.kind == "kernel"]
        if len(kernels) < len(method.instructions):
            looked_up = _lookup_of(method)
            found.update(str(each.target) for each in kernels if each is not looked_up)
    return dict(found)


def _plan(program: Program) -> Record:
    return next(plan for plan in program.root.execution_plan if plan.delegates)


def _values(program: Program) -> list[Record]:
    return [value.val for value in _plan(program).values]


def _lookup(program: Program) -> Instruction | None:
    calls = (_lookup_of(method) for method in program.methods.values())
    return next((call for call in calls if call), None)


def _lookup_of(method: Method) -> Instruction | None:
    """The lookup, where all else is a delegate call behind it that reads its result."""
    kinds = [each.kind for each in method.instructions]
    if kinds[:2] != ["kernel", "delegate"] or kinds.count("delegate") != 1:
        return None
    first, delegate = method.instructions[:2]
    return first if is_lookup(first) and first.args[-1] in delegate.args else None
