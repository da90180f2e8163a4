"""A Vulkan delegate's graph as plain data: operators over numbered values, and constants."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from quatrain.errors import InputError
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS
from quatrain.program.vulkan.operator_schemas import STRICT, argument_names, operator_kind

_MAX_DIMS = 8


@dataclass(frozen=True)
class Tensor:
    """A tensor value. `shape` is its upper bound where shapes are dynamic.

    `constant`: index of a constant, or None. Values with the same `mem_obj_id` share memory.
    dtypes are numpy's names; `staging_dtype` is the type in which the host copies it.
    """

    dtype: str
    shape: tuple[int, ...]
    constant: int | None = None
    mem_obj_id: int | None = None
    storage: str = "default"
    layout: str = "default"
    staging_dtype: str = "unset"

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, without padding."""
        if self.dtype == "unset":
            return 0
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class SymInt:
    """An integer computed as the graph runs; `value` is its initial value."""

    value: int = 0


@dataclass(frozen=True)
class ValueList:
    """A list of value ids, such as an operator's several outputs, or a shape with a SymInt."""

    items: tuple[int, ...]


@dataclass(frozen=True)
class Plain:
    """A fixed value. `kind`: null int double bool string int_list double_list bool_list."""

    kind: str
    value: Any = None


Value = Tensor | SymInt | ValueList | Plain


@dataclass(frozen=True)
class Operator:
    """One call: `name` as stored ('aten.add.Tensor'), `args` value ids, the output last.

    `row_by_row`: a linear that is to compute each row as if it were the only one; no program says
    so, but one that was edited to be measured.
    """

    name: str
    args: tuple[int, ...]
    node_id: int = 0
    row_by_row: bool = False

    @property
    def kind(self) -> str:
        """The name without its overload: 'aten.add', 'et_vk.rms_norm', 'sym_size'."""
        return operator_kind(self.name)

    @property
    def named_args(self) -> dict[str, int]:
        """Argument name -> value id; names as in `operator_schemas`, else 'arg0', ..., 'out'."""
        names = argument_names(self.kind, len(self.args))
        if names is None:
            names = (*(f"arg{i}" for i in range(len(self.args) - 1)), "out")
        return dict(zip(names, self.args, strict=True)) if self.args else {}

    @property
    def out(self) -> int:
        """The value id of the output (a `ValueList` if there are several)."""
        return self.args[-1]


@dataclass(frozen=True)
class Constant:
    """Where a constant's bytes are: under `key` in the named data, or at `offset` in the blob."""

    nbytes: int
    key: str | None
    offset: int = 0


@dataclass
class VulkanGraph:
    """A Vulkan delegate's graph. Its lists may be edited; `write_program` stores the result."""

    operators: list[Operator]
    values: list[Value]
    inputs: list[int]
    outputs: list[int]
    constants: list[Constant]
    version: str = "0"
    storage_override: str = "default"
    layout_override: str = "default"
    # Gives a constant's bytes; set by whoever opened the file.
    fetch: Callable[[Constant], memoryview] = field(
        default=lambda constant: memoryview(b""), repr=False, compare=False
    )

    def tensor(self, value_id: int) -> Tensor:
        """The tensor `value_id`; `InputError` if it is another kind of value."""
        value = self.values[value_id]
        if not isinstance(value, Tensor):
            raise InputError(f"value {value_id} of the graph is {value}, expected a tensor")
        return value

    def plain(self, value_id: int) -> Any:
        """The Python value of the fixed value `value_id`; `InputError` for another kind."""
        value = self.values[value_id]
        if not isinstance(value, Plain):
            raise InputError(f"value {value_id} of the graph is {value}, expected a fixed value")
        return value.value

    def integer(self, value_id: int) -> int:
        """The fixed integer `value_id`; `InputError` if it is another kind of value."""
        value = self.plain(value_id)
        if not isinstance(value, int) or isinstance(value, bool):
            raise InputError(f"value {value_id} of the graph is {value!r}, expected an integer")
        return value

    def add(self, value: Value) -> int:
        """The id of `value`, which the graph has from now on."""
        self.values.append(value)
        return len(self.values) - 1

    def add_constant(self, stored: Constant, dtype: str, shape: tuple[int, ...]) -> int:
        """The id of a tensor whose bytes are `stored`, which the graph has from now on."""
        self.constants.append(stored)
        return self.add(Tensor(dtype, shape, len(self.constants) - 1, staging_dtype=dtype))

    def flat(self, value_ids: Iterable[int]) -> list[int]:
        """`value_ids`, of lists the ids of what they hold."""
        found: list[int] = []
        for value_id in value_ids:
            value = self.values[value_id]
            found += value.items if isinstance(value, ValueList) else (value_id,)
        return found

    def inputs_of(self, operator: Operator) -> list[int]:
        """The value ids that `operator` reads, in order (lists flattened)."""
        return self.flat(operator.args[:-1])

    def outputs_of(self, operator: Operator) -> tuple[int, ...]:
        """The value ids that `operator` writes, in order (a list output flattened)."""
        return tuple(self.flat(operator.args[-1:]))

    def stored(self, value_id: int) -> Constant | None:
        """Where the bytes of a constant tensor are; None for any other value."""
        value = self.values[value_id]
        if not isinstance(value, Tensor) or value.constant is None:
            return None
        return self.constants[value.constant]

    def constant_key(self, value_id: int) -> str | None:
        """The named-data key of a constant tensor, None for any other value."""
        stored = self.stored(value_id)
        return stored.key if stored else None

    def constant(self, value_id: int) -> np.ndarray:
        """A read-only view, in the tensor's shape and dtype, of a constant's bytes in the file;
        `InputError` if it is another kind of value, or fewer bytes are stored."""
        tensor, stored = self.tensor(value_id), self.stored(value_id)
        if stored is None:
            raise InputError(f"value {value_id} of the graph is not a constant")
        raw = self.fetch(stored)
        if len(raw) < tensor.nbytes:
            raise InputError(
                f"constant {value_id} of the graph: {len(raw)} bytes are stored, "
                f"{tensor.nbytes} are needed for {tensor.dtype}{list(tensor.shape)}"
            )
        view = np.frombuffer(raw[: tensor.nbytes], dtype=tensor.dtype).reshape(tensor.shape)
        view.flags.writeable = False
        return view


def check_graph(graph: VulkanGraph, what: str) -> None:
    """Refuse, with `InputError`, ids out of range, lists inside lists, absurd shapes, int4
    weights that are not a matrix of bytes, and constants packed into more or fewer numbers than
    they have."""

    def require(ok: bool, reason: str) -> None:
        if not ok:
            raise InputError(f"{what}: damaged: {reason}")

    count = len(graph.values)
    for value in graph.values:
        _check_value(graph, value, require)
    for operator in graph.operators:
        _check_operator(graph, operator, require)
    for item in (*graph.inputs, *graph.outputs):
        require(item < count, f"input or output {item} of {count} values")


_Require = Callable[[bool, str], None]  # whether it is so, and what it is where it is not


def _check_value(graph: VulkanGraph, value: Value, require: _Require) -> None:
    if isinstance(value, Tensor):
        require(len(value.shape) <= _MAX_DIMS, f"a tensor of {len(value.shape)} dimensions")
        require(value.nbytes < 2**48, f"a tensor of shape {list(value.shape)}")
        if value.constant is not None:
            require(value.constant < len(graph.constants), "a constant id out of range")
    elif isinstance(value, ValueList):
        count = len(graph.values)
        for item in value.items:
            require(0 <= item < count, f"value id {item} of {count}")
            nested = isinstance(graph.values[item], ValueList)
            require(not nested, "a list of values inside a list of values")


def _check_operator(graph: VulkanGraph, operator: Operator, require: _Require) -> None:
    name, count = operator.name, len(graph.values)
    require(bool(operator.args), f"operator {name} has no arguments")
    known = argument_names(operator.kind, len(operator.args)) is not None
    strict = operator.kind in STRICT
    require(known or not strict, f"{name} with {len(operator.args)} arguments")
    for item in operator.args:
        require(0 <= item < count, f"{name}: value id {item} of {count}")
    if operator.kind in (*INT4_LINEARS, "et_vk.embedding_q4gsw"):
        weights = graph.values[operator.named_args["weights"]]
        is_tensor = isinstance(weights, Tensor)
        fits = is_tensor and len(weights.shape) == 2 and weights.dtype in ("uint8", "int8")
        require(fits, f"{name}: its weights are {weights}, expected a matrix of bytes")
    if operator.kind == "et_vk.prepack":
        shapes = [getattr(graph.values[i], "shape", ()) for i in operator.args]
        alike = math.prod(shapes[0]) == math.prod(shapes[-1])
        require(alike, f"{name} of {list(shapes[0])} into {list(shapes[-1])}")
