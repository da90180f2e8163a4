"""What ExecuTorch's loader refuses of a method's values, whatever uses them.

Sources: `tensor_parser_portable.cpp`, `tensor_parser_exec_aten.cpp`, `program_validation.cpp`,
`hierarchical_allocator.h` and `Program::get_constant_buffer_data` of ExecuTorch 1.5.
"""

import math
from collections.abc import Iterator
from itertools import chain

from quatrain.program.file.flatbuffer import Record
from quatrain.program.scalar_types import ITEM_SIZES

_UNBOUND = 2  # of TensorShapeDynamism
_MOST_DIMENSIONS, _TYPES = 16, 30
_EXTERNAL = 1  # of TensorDataLocation


def loaded_value_problems(root: Record) -> Iterator[str]:
    """Values of the methods of the decoded program `root` with which none of them loads, in words
    for people."""
    for plan in root.execution_plan or ():
        for index, value in enumerate(each.val for each in plan.values or ()):
            found = _problem(root, plan, value)
            if found:
                yield f"value {index} of method {plan.name or ''} {found}"


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
    return "has sizes without a limit" if tensor.shape_dynamism == _UNBOUND else None


def _place_problem(root: Record, plan: Record, tensor: Record) -> str | None:
    planned, index = tensor.allocation_info, tensor.data_buffer_idx or 0
    extra = tensor.extra_tensor_info
    if extra is not None and extra.location == _EXTERNAL:
        index = 0  # in a .ptd file
    nbytes = math.prod(tensor.sizes or ()) * ITEM_SIZES.get(tensor.scalar_type or 0, 0)
    if planned is not None:
        sizes = plan.non_const_buffer_sizes or []
        start = (planned.memory_offset_high << 32) + planned.memory_offset_low
        if not 0 < planned.memory_id < len(sizes) or start + nbytes > sizes[planned.memory_id]:
            return "lies past the end of its planned memory"
    stored = _stored(root) if planned is None else _initial(root)
    if index >= max(1, stored):
        return f"has the data {index} of {stored} that the file has"
    return None


def _stored(root: Record) -> int:
    """How many constants there are, for methods; the first is none."""
    place = root.constant_segment
    return len((place and place.offsets) or root.constant_buffer or ())


def _initial(root: Record) -> int:
    """How many values that change are there at first."""
    places = chain.from_iterable(each.offsets or () for each in root.mutable_data_segments or ())
    return sum(1 for _ in places)
