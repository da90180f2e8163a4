"""The state of a graph that is being lowered: what was made so far, and what its values became."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np

from quatrain.arithmetic import Arithmetic
from quatrain.errors import InputError
from quatrain.program import Operator, Plain, SymInt, ValueList, VulkanGraph
from quatrain.program.vulkan.half_buffers import in_half_buffer
from quatrain.runtime.defects import EmulatedDefect
from quatrain.runtime.operators.errors import has_room
from quatrain.runtime.wgpu.dispatches.dispatch import Dispatch, Operand, Symbol, Traits
from quatrain.runtime.wgpu.dispatches.pointwise import BINARY
from quatrain.runtime.wgpu.dispatches.rows import Join, Quantized, Row
from quatrain.runtime.wgpu.symbols import number

_DTYPES = {
    "float32": "f32", "float16": "f16", "int32": "i32", "int64": "i32", "int8": "i32",
    "uint8": "u8", "bool": "i32",
}  # fmt: skip
T = TypeVar("T")

# What joins two activations into one that is normalized or quantized next.
_MAKERS = (BINARY["aten.add"], BINARY["silu_mul"])


@dataclass
class Lowered:
    """A graph's dispatches at one set of input shapes.

    `operands` maps value ids to memory; keys are ("constant", key, type), ("cache", value id)
    or ("value", value id). `origins` holds, per dispatch, the operator it came from.
    """

    dispatches: list[Dispatch] = field(default_factory=list)
    origins: list[Operator] = field(default_factory=list)
    operands: dict[int, Operand] = field(default_factory=dict)
    symbols: dict[int, int] = field(default_factory=dict)
    # (symbol, length, limit): a step is refused where the symbol's value + length > limit.
    bounds: set[tuple[int, int, int]] = field(default_factory=set)
    # What was read of the symbols, and what it was: where it is another, this is of no use.
    assumed: list[tuple[Callable[[Mapping[int, int]], Any], Any]] = field(default_factory=list)

    def holds(self, symbols: Mapping[int, int]) -> bool:
        """Whether it is right for a step with these `symbols` (SymInt value id -> number)."""
        return all(read(symbols) == found for read, found in self.assumed)


def storage_dtype(dtype: str, fp16: bool) -> str:
    """How a tensor of the graph is stored; float16 widens where the GPU does not offer it."""
    if dtype not in _DTYPES:
        raise InputError(f"the GPU runtime does not hold tensors of {dtype}")
    return "f32" if dtype == "float16" and not fp16 else _DTYPES[dtype]


class Lowering:
    """What the handlers of operators (operators/) read and add to.

    `operator`: the one that is being lowered.
    """

    operator: Operator

    def __init__(
        self,
        graph: VulkanGraph,
        traits: Traits,
        fp16: bool,
        inputs: Mapping[int, np.ndarray],
        arithmetic: Arithmetic,
        defect: EmulatedDefect | None,
        join: bool,
    ):
        self.graph = graph
        self.traits = traits
        self.fp16 = fp16
        self.inputs = inputs
        self.arithmetic = arithmetic
        self.defect = defect
        self.join = join
        self._rows: dict[int, Row] = {}  # by the index of their dispatch
        self.result = Lowered()
        # Quantized activations by the tensor, or by the tensor and the parameters, they are of.
        self.quantized: dict[Any, Quantized] = {}
        self._written = {op.args[1] for op in graph.operators if op.kind == "update_cache"}
        for value_id, array in inputs.items():
            self.declare(value_id, array.shape)

    def add_row(self, row: Row) -> Dispatch:
        """The dispatch of `row`, which takes the place of the one before it if that only makes
        the row: a sum, a gated activation, or a norm that is now to be quantized."""
        before = self._maker(row.x) if self.join else None
        if isinstance(before, Row) and row.norm:
            before = None  # a norm of a norm: a dispatch computes one
        if before is not None:
            self.result.dispatches.pop()
            self.result.origins.pop()
            if isinstance(before, Join):
                row = replace(row, join=before)
            else:
                row = replace(before, quantized=row.quantized)
        self._rows[len(self.result.dispatches)] = row
        return row.dispatch(self.traits, self.defect)

    def _maker(self, x: Operand) -> Join | Row | None:
        """What the last dispatch does, if that makes `x` and can be joined with what follows."""
        if not self.result.dispatches:
            return None
        last = self.result.dispatches[-1]
        if last.kernel == "row":
            row = self._rows[len(self.result.dispatches) - 1]
            made = row.norm.y if row.norm and not row.quantized else None
            # Norms of heads are not joined: x then is their memory, seen as rows of tokens.
            return row if made and (made.key, made.rows) == (x.key, x.rows) else None
        expression = dict(last.constants).get("EXPRESSION")
        if last.kernel != "elementwise" or expression not in _MAKERS or len(last.operands) != 3:
            return None
        a, b, y = last.operands
        whole = a.count == b.count == y.count
        return Join(expression, a, b) if whole and y.key == x.key else None

    def operand(self, value_id: int) -> Operand:
        """The memory of a tensor that was computed, given or is a constant."""
        if value_id not in self.result.operands and value_id in self._written:
            return self.cache(value_id)
        if value_id not in self.result.operands:
            tensor = self.graph.tensor(value_id)
            if tensor.constant is None:
                raise InputError(f"value {value_id} of the graph is read before it is computed")
            key = self.graph.constant_key(value_id) or f"offset {tensor.constant}"
            dtype = storage_dtype(tensor.dtype, self.fp16)
            # The same bytes may also be a constant of another type.
            named = ("constant", key, tensor.dtype)
            self.result.operands[value_id] = Operand(named, dtype, tensor.shape)
        return self.result.operands[value_id]

    def cache(self, value_id: int) -> Operand:
        """A KV cache: a constant of the graph that the program writes to."""
        tensor = self.graph.tensor(value_id)
        dtype = storage_dtype(tensor.dtype, self.fp16)
        self.result.operands[value_id] = Operand(("cache", value_id), dtype, tensor.shape)
        return self.result.operands[value_id]

    def declare(self, value_id: int, shape: tuple[int, ...]) -> Operand:
        """Memory for a result of `shape`."""
        self._require_room(value_id, shape)
        dtype = storage_dtype(self.graph.tensor(value_id).dtype, self.fp16)
        self.result.operands[value_id] = Operand(("value", value_id), dtype, tuple(shape))
        return self.result.operands[value_id]

    def _require_room(self, value_id: int, shape: tuple[int, ...]) -> None:
        bound = self.graph.tensor(value_id).shape
        if not has_room(shape, bound):
            raise InputError(
                f"a tensor of shape {list(shape)} does not fit the program, which takes at most "
                f"{list(bound)}; use a shorter prompt, or feed it in parts"
            )

    @property
    def outputs(self) -> tuple[int, ...]:
        """The value ids of the operator's results."""
        return self.graph.outputs_of(self.operator)

    @property
    def in_half(self) -> bool:
        """Whether a phone computes the operator in float16 throughout."""
        return in_half_buffer(self.graph, self.operator)

    def output(self, shape: tuple[int, ...]) -> Operand:
        """Memory for the operator's only result, of `shape`."""
        return self.declare(self.operator.out, shape)

    def alias(self, x: Operand, shape: tuple[int, ...]) -> None:
        """Let the output be x's memory seen in another shape; a KV cache has memory of its own."""
        if self.operator.out in self._written:
            self.cache(self.operator.out)
        else:
            self._require_room(self.operator.out, shape)
            self.result.operands[self.operator.out] = replace(x, shape=tuple(shape))

    def has_tensor(self, value_id: int) -> bool:
        """Whether an optional argument, such as a bias, is given."""
        return not isinstance(self.graph.values[value_id], Plain)

    def plain(self, value_id: int) -> Any:
        """A fixed value."""
        return self.graph.plain(value_id)

    def assume(self, read: Callable[[Mapping[int, int]], T]) -> T:
        """The result of `read` for the current symbols; a step for which it gives another result is
        lowered again."""
        found = read(self.result.symbols)
        self.result.assumed.append((read, found))
        return found

    def number(self, value_id: int) -> int:
        """An integer: a fixed one, or the current value of a symbol."""
        if isinstance(self.graph.values[value_id], SymInt):
            return self.assume(lambda symbols: number(self.graph, value_id, symbols))
        return number(self.graph, value_id, {})

    def axis(self, value_id: int, x: Operand) -> int:
        """A dimension of `x`, which may be counted from the end, from the first one on."""
        return self.number(value_id) % len(x.shape)

    def sizes(self, value_id: int) -> tuple[int, ...]:
        """A list of integers, such as a shape; each fixed or symbolic."""
        listed = self.graph.values[value_id]
        if isinstance(listed, ValueList):
            return tuple(self.number(item) for item in listed.items)
        return tuple(self.plain(value_id))

    def bounded(self, value_id: int, length: int, limit: int) -> int | Symbol:
        """A position for a dispatch's params, from which `length` of `limit` rows are used.

        A fixed position is inserted directly; a symbol is inserted, and checked, when a step
        begins.
        """
        if isinstance(self.graph.values[value_id], Plain):
            return self.plain(value_id)
        if value_id not in self.result.symbols:
            raise InputError(f"value {value_id} of the graph, a position, is never computed")
        self.result.bounds.add((value_id, length, limit))
        return Symbol(value_id)
