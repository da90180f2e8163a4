"""What ExecuTorch's runtime refuses of a method, or ends at, whatever its delegates compute.

Sources: `tensor_parser_portable.cpp`, `tensor_parser_exec_aten.cpp`, `program_validation.cpp`,
`hierarchical_allocator.h`, `Program::get_constant_buffer_data` and `method.cpp` of ExecuTorch 1.5.
"""

import math
from collections.abc import Iterator
from itertools import chain

from quatrain.program.file.flatbuffer import Record
from quatrain.program.scalar_types import ITEM_SIZES

_BOUND, _BOOL = 1, 11  # of TensorShapeDynamism and ScalarType
_MOST_DIMENSIONS, _TYPES = 16, 30
_EXTERNAL = 1  # of TensorDataLocation
IN_A_PTD = (
    "it was exported into a separate .ptd file, which Quatrain does not read: export the model "
    "again with its constants in the program"
)
_UNUSED = 1 << 32  # bytes of planned memory that no planner leaves


def loaded_value_problems(root: Record) -> Iterator[str]:
    """Values of the methods of the decoded program `root` with which none of them loads, and what a
    method does to them that ends the runtime, in words for people."""
    for plan in root.execution_plan or ():
        name = plan.name or ""
        for index, value in enumerate(each.val for each in plan.values or ()):
            found = _problem(root, plan, value)
            if found:
                yield f"value {index} of method {name} {found}"
        steps = [
            step.instr_args
            for each in plan.chains or ()
            for step in each.instructions or ()
            if step
        ]
        if plan.delegates and not (steps and name):
            yield f"method {name or 'without a name'} has {len(steps)} instructions"
        for step in steps:
            yield from _step_problems(plan, step)
        ends = [_end(each.val) for each in plan.values or ()]
        if sum(plan.non_const_buffer_sizes or ()) > sum(ends) + _UNUSED:
            yield f"method {name} plans {sum(plan.non_const_buffer_sizes)} bytes of memory"


def _step_problems(plan: Record, step: Record) -> Iterator[str]:
    """A jump on what is no condition, and the release of a value that the runtime does not own."""
    values: list[Record] = plan.values or []
    if step.table == "JumpFalseCall":
        value = values[step.cond_value_index].val
        if getattr(value, "scalar_type", _BOOL) != _BOOL:
            yield f"value {step.cond_value_index} of method {plan.name} is no condition of a jump"
    if step.table == "FreeCall" and 0 <= step.value_index < len(values):
        given = step.value_index in (*(plan.inputs or ()), *(plan.outputs or ()))
        if given or getattr(values[step.value_index].val, "allocation_info", None):
            yield f"value {step.value_index} of method {plan.name} is freed, though it is planned"


def _problem(root: Record, plan: Record, value: Record | None) -> str | None:
    if value is None:
        return "is missing"
    if value.table != "Tensor":
        return None
    return _form_problem(value) or _place_problem(root, plan, value)


def _form_problem(tensor: Record) -> str | None:
    sizes, order = list(tensor.sizes or ()), list(tensor.dim_order or ())
    if any(size < 0 for size in sizes) or len(sizes) > _MOST_DIMENSIONS:
        return f"has the sizes {sizes}"
    if sorted(order) != list(range(len(sizes))):
        return f"has the order of dimensions {order} for {len(sizes)} of them"
    if not 0 <= (tensor.scalar_type or 0) < _TYPES:
        return f"has the type {tensor.scalar_type}, which there is not"
    if tensor.storage_offset:
        return f"has the storage offset {tensor.storage_offset}, expected 0"
    return "has sizes without a limit" if tensor.shape_dynamism > _BOUND else None


def _place_problem(root: Record, plan: Record, tensor: Record) -> str | None:
    planned, index = tensor.allocation_info, tensor.data_buffer_idx or 0
    if is_external(tensor):
        index = 0
    if planned is not None:
        sizes = plan.non_const_buffer_sizes or []
        if not 0 < planned.memory_id < len(sizes) or _end(tensor) > sizes[planned.memory_id]:
            return "lies past the end of its planned memory"
    stored = _stored(root) if planned is None else _initial(root)
    if index >= max(1, stored):
        return f"has the data {index} of {stored} that the file has"
    return None


def is_external(value: Record) -> bool:
    """Whether a value is a tensor whose data is in a `.ptd` file beside the program."""
    extra = getattr(value, "extra_tensor_info", None)
    return extra is not None and extra.location == _EXTERNAL


def _end(value: Record | None) -> int:
    """Where a value ends in its planned memory, in bytes; 0 if it is in none."""
    planned = getattr(value, "allocation_info", None)
    if value is None or planned is None:
        return 0
    start = (planned.memory_offset_high << 32) + planned.memory_offset_low
    return start + math.prod(value.sizes or ()) * ITEM_SIZES.get(value.scalar_type or 0, 0)


def _stored(root: Record) -> int:
    """How many constants there are, for methods; the first is none."""
    place = root.constant_segment
    return len((place and place.offsets) or root.constant_buffer or ())


def _initial(root: Record) -> int:
    """How many values that change are there at first."""
    places = chain.from_iterable(each.offsets or () for each in root.mutable_data_segments or ())
    return sum(1 for _ in places)
