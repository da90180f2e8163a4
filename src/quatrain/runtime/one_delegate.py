"""The requirement of the runtimes for Vulkan programs: a program is one delegate call, perhaps
after a lookup of rows of a table."""

from collections.abc import Sequence
from typing import Any

from quatrain.errors import InputError
from quatrain.program import Program
from quatrain.program.delegate_call import STATIC
from quatrain.program.plan.row_lookup import row_lookup, work_beside_delegate
from quatrain.program.scalar_types import NAMES


def require_only_delegate(program: Program, runtime: str) -> None:
    """Refuse, for `runtime`, a program that does work outside its only Vulkan delegate, or whose
    call of it no runtime takes."""
    if not program.vulkan.outputs:
        raise InputError(f"{program.path}: its delegate has no outputs")
    for problem in program.call_problems:
        raise InputError(
            f"{program.path}: no runtime takes its call of its delegate: {problem}; "
            "is the program damaged? Export it again, with quatrain export if the model keeps "
            "another state than a KV cache"
        )
    outside = work_beside_delegate(program)
    calls = [each for each in program.instructions if each.kind != "kernel"]
    if outside or [each.kind for each in calls] != ["delegate"]:
        found = ", ".join(sorted(outside)) or f"{len(program.instructions)} instructions"
        raise InputError(
            f"{program.path}: does work outside its Vulkan delegate ({found}); the {runtime} "
            "runs programs that are one delegate call"
        )
    if not method_outputs(program):
        raise InputError(
            f"{program.path}: what its method returns is no result of its delegate; is the program "
            "damaged? Export it again"
        )


class MethodInputs:
    """What the method of `program` takes, turned into what its only delegate's graph does: in the
    order of the graph, which may be another, since whoever exported it may have read the position
    first, and rows of a table that the method looks up.

    Attributes:
        names: The inputs of the method, in words for people.
        longest: The most tokens that the method has room for; None if no input has any.
    """

    def __init__(self, program: Program) -> None:
        self._path = program.path
        graph = program.vulkan
        plan, *_ = [plan for plan in program.root.execution_plan or () if plan.delegates]
        (call,) = [each for each in program.instructions if each.kind == "delegate"]
        taken: list[int] = list(plan.inputs or ())
        given = call.args[: len(graph.inputs)]
        self._lookup = row_lookup(program)
        rows = self._lookup and self._lookup.result
        if not set(given) <= {*taken, rows}:
            raise InputError(
                f"{program.path}: its delegate is given values that are no inputs of its method; "
                "export it so that the method is one delegate call"
            )
        records = [plan.values[value].val for value in taken]
        self.names = [_name(record) for record in records]
        self._only = [_only_size(record) for record in records]
        sizes = [list(record.sizes or ()) for record in records if _is_tensor(record)]
        self.longest: int | None = next((one[1] for one in sizes if len(one) > 1), None)
        # Of what the delegate is given: an input of the method, or the rows (None).
        self._places = [None if value == rows else taken.index(value) for value in given]

    def in_order(self, inputs: Sequence[Any]) -> list[Any]:
        """`inputs`, tensors or arrays as the method takes them, as the graph takes them; rows are a
        numpy array. Raises `InputError` if there are more or fewer, one has another size than the
        only one that the method takes, or a token has no row."""
        if len(inputs) != len(self.names):
            raise InputError(
                f"{self._path}: {len(inputs)} inputs given, expected {', '.join(self.names)}"
            )
        for given, only in zip(inputs, self._only, strict=True):
            if only is not None and list(given.shape) != only:
                raise InputError(
                    f"{self._path}: an input of shape {list(given.shape)} does not fit; it takes "
                    f"{only} alone; export it with a length that varies, or of 1"
                )
        rows = self._lookup.rows(inputs) if self._lookup else None
        return [rows if place is None else inputs[place] for place in self._places]


def _name(value: Any) -> str:
    """An input's type and its largest size, such as int64[1, 31]."""
    if not _is_tensor(value):
        return "nothing" if value is None else value.table
    return f"{NAMES.get(value.scalar_type or 0, value.scalar_type)}{list(value.sizes or ())}"


def _only_size(value: Any) -> list[int] | None:
    """The only size of an input that may have no other; None if it varies, or is not said."""
    if not _is_tensor(value) or value.shape_dynamism != STATIC:
        return None
    return list(value.sizes or ())


def _is_tensor(value: Any) -> bool:
    return value is not None and value.table == "Tensor"


def method_outputs(program: Program) -> list[int]:
    """The values of the only delegate's graph in the order in which the method returns them, which
    may be another than the delegate's, and leave some out."""
    graph = program.vulkan
    plans = [plan for plan in program.root.execution_plan or () if plan.delegates]
    (call,) = [each for each in program.instructions if each.kind == "delegate"]
    written = call.args[len(call.args) - len(graph.outputs) :]
    value_of = dict(zip(written, graph.outputs, strict=False))
    return [value_of[i] for plan in plans for i in plan.outputs or () if i in value_of]
