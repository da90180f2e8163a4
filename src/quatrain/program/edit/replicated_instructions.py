"""Extends the instructions of a CPU program of three layers to any number of layers.

The counterpart of `replicated_layers` for ExecuTorch's own list of instructions. The second layer's
are repeated for every layer between the first and the last, on the same values: a layer's are
free again when the next begins. Only delegates, constants and KV caches are each layer's own.
"""

import copy
import math
from dataclasses import dataclass

from quatrain.multiples import up_to
from quatrain.program.edit.constant_source import ConstantSource, in_layer, layer_of
from quatrain.program.edit.replicated_layers import NOT_AS_RECEIVED, IrregularGraph
from quatrain.program.file.flatbuffer import Record

_ALIGNMENT = 16  # of a tensor in memory, bytes; ExecuTorch's own
# ScalarType -> bytes, of what a KV cache may be: int8, half, float.
_ITEM_SIZES = {1: 1, 5: 2, 6: 4}


@dataclass(frozen=True)
class Renaming:
    """A delegate of the template, and the layer `to` that it becomes where it is of `layer`."""

    delegate: int
    layer: int = 0
    to: int = 0

    def of(self, source: ConstantSource) -> ConstantSource:
        """The source, in the result, of a constant whose source in the template is `source`."""
        return source.moved(self.layer, self.to)


@dataclass(frozen=True)
class _Start:
    """Where a layer begins: the index of its first instruction, and the value it receives."""

    index: int
    entry: int


def replicate_instructions(plan: Record, depth: int) -> list[Renaming]:
    """Edit `plan`, the decoded plan of three layers, to one of `depth` layers (3 or more).

    Tensors are known by their `fully_qualified_name`. Returns, for each delegate of the result,
    which of the template's it is and how its tensors' names change. Raises `IrregularGraph` if the
    second layer does not hand on its result as, and in the memory in which, it received its input,
    or hands on more.
    """
    uses = _Uses(plan)
    middle, last = uses.layer_starts()
    uses.require_repeating(middle, last)
    given = uses.instructions
    result, renamings = [], []

    def add(instructions: list[Record], layer: int = 0, to: int = 0) -> None:
        for instruction in instructions:
            call = instruction.instr_args
            if call.table == "DelegateCall":
                call = copy.copy(call)
                renamings.append(Renaming(call.delegate_index, layer, to))
                call.delegate_index = len(renamings) - 1
            result.append(Record(table="Instruction", instr_args=call))

    add(given[: last.index])
    for layer in range(2, depth - 1):
        copier = _Copier(plan, layer, {middle.entry: last.entry})
        add([copier.copy(one) for one in given[middle.index : last.index]], 1, layer)
    add(given[last.index :], 2, depth - 1)
    _rename_constants(plan, depth - 1, uses.first_use, last.index)
    plan.chains[0].instructions = result
    plan.delegates = [copy.copy(plan.delegates[renaming.delegate]) for renaming in renamings]
    return renamings


def name_of(value: Record) -> str:
    """The name of a constant or a KV cache, empty for other values."""
    tensor = value.val
    if tensor is None or tensor.table != "Tensor" or tensor.extra_tensor_info is None:
        return ""
    return tensor.extra_tensor_info.fully_qualified_name or ""


def _rename_constants(plan: Record, layer: int, first_use: dict[int, int], start: int) -> None:
    """Make the third layer's constants, first used at instruction `start` or later, `layer`'s."""
    for value_id, first in first_use.items():
        value = plan.values[value_id]
        if first >= start and layer_of(name_of(value)) == 2:
            named = value.val.extra_tensor_info
            named.fully_qualified_name = in_layer(named.fully_qualified_name, layer)


class _Uses:
    """Which instructions of a plan use which values."""

    def __init__(self, plan: Record) -> None:
        self.plan = plan
        if len(plan.chains) != 1:
            raise IrregularGraph(f"the program has {len(plan.chains)} chains of instructions")
        self.instructions: list[Record] = plan.chains[0].instructions
        kinds = {one.instr_args.table for one in self.instructions}
        if not kinds <= {"KernelCall", "DelegateCall"}:
            raise IrregularGraph(f"the program has {', '.join(sorted(kinds))}")
        self.first_use: dict[int, int] = dict.fromkeys(plan.inputs, -1)
        self.last_use: dict[int, int] = {}
        for index, instruction in enumerate(self.instructions):
            for value_id in self.values_of(instruction):
                self.first_use.setdefault(value_id, index)
                self.last_use[value_id] = index
        self.last_use.update(dict.fromkeys(plan.outputs, len(self.instructions)))

    def values_of(self, instruction: Record) -> set[int]:
        """What a call takes and gives, members of lists too."""
        values = set(instruction.instr_args.args)
        for value_id in instruction.instr_args.args:
            values.update(_members(self.plan, value_id))
        return values

    def layer_starts(self) -> tuple[_Start, _Start]:
        """Where the second and the third layer begin."""
        norms = [self._first_norm(f"layers.{layer}") for layer in (1, 2)]
        # What both layers find: the position, the rotary tables' rows.
        shared = self._live_values(norms[0]) & self._live_values(norms[1])
        middle, last = (self._start_before(norm, shared) for norm in norms)
        return middle, last

    def _first_norm(self, layer: str) -> int:
        """Of attention's input, or, where that has none, of what attention gives."""
        try:
            return self._first_user(f"{layer}.attention_norm.weight")
        except IrregularGraph:
            return self._first_user(f"{layer}.post_attention_norm.weight")

    def _first_user(self, name: str) -> int:
        for value_id, index in self.first_use.items():
            if name_of(self.plan.values[value_id]) == name:
                return index
        raise IrregularGraph(f"no instruction of the lowered program uses {name}")

    def _live_values(self, index: int) -> set[int]:
        """The computed values that are used both before instruction `index` and from it on."""
        return {
            value_id
            for value_id, first in self.first_use.items()
            if first < index <= self.last_use.get(value_id, -1)
            and not name_of(self.plan.values[value_id])
        }

    def _start_before(self, index: int, shared: set[int]) -> _Start:
        """The last position at or before `index` where only one value is passed on."""
        for start in range(index, -1, -1):
            alive = self._live_values(start) - shared
            if len(alive) == 1:
                return _Start(start, alive.pop())
        raise IrregularGraph("no single value is handed from layer to layer")

    def require_repeating(self, middle: _Start, last: _Start) -> None:
        """Raise `IrregularGraph` unless the third layer finds what the second found, where it
        found it, and nothing else of the second's."""
        values = self.plan.values
        if values[middle.entry] != values[last.entry]:
            raise IrregularGraph(NOT_AS_RECEIVED)
        for instruction in self.instructions[last.index :]:
            for value_id in self.values_of(instruction) - {last.entry}:
                if middle.index <= self.first_use[value_id] < last.index:
                    raise IrregularGraph(f"what follows a layer uses its inner value {value_id}")


def _members(plan: Record, value_id: int) -> list[int]:
    """The values that the list `value_id` consists of; none if it is not a list."""
    value = plan.values[value_id].val
    lists = ("TensorList", "OptionalTensorList", "IntList")
    return [i for i in value.items if i >= 0] if value and value.table in lists else []


class _Copier:
    """Copies the second layer's calls for layer `layer`.

    `mapped`: value -> its replacement; extended by the layer's own constants and caches.
    """

    def __init__(self, plan: Record, layer: int, mapped: dict[int, int]) -> None:
        self.plan = plan
        self.layer = layer
        self.mapped = mapped

    def copy(self, instruction: Record) -> Record:
        call = copy.copy(instruction.instr_args)
        call.args = [self._place(i) for i in call.args]
        return Record(table="Instruction", instr_args=call)

    def _place(self, value_id: int) -> int:
        if value_id in self.mapped:
            return self.mapped[value_id]
        value = self.plan.values[value_id]
        members = _members(self.plan, value_id)
        placed = [self._place(i) for i in members]
        if layer_of(name_of(value)) == 1:
            self.mapped[value_id] = self._add(self._renamed(value.val))
        elif placed != members:
            items = copy.copy(value.val)
            items.items = placed
            self.mapped[value_id] = self._add(items)
        return self.mapped.get(value_id, value_id)

    def _add(self, value: Record) -> int:
        self.plan.values.append(Record(table="EValue", val=value))
        return len(self.plan.values) - 1

    def _renamed(self, tensor: Record) -> Record:
        """`tensor` of the second layer as this layer's; a KV cache with memory of its own."""
        tensor, named = copy.copy(tensor), copy.copy(tensor.extra_tensor_info)
        named.fully_qualified_name = in_layer(named.fully_qualified_name, self.layer)
        tensor.extra_tensor_info = named
        if tensor.allocation_info is not None:
            tensor.allocation_info = self._more_memory(tensor)
        return tensor

    def _more_memory(self, tensor: Record) -> Record:
        """A place for `tensor` at the end of the memory it is in."""
        place = copy.copy(tensor.allocation_info)
        sizes = self.plan.non_const_buffer_sizes
        offset = up_to(sizes[place.memory_id], _ALIGNMENT)
        nbytes = math.prod(tensor.sizes) * _ITEM_SIZES[tensor.scalar_type]
        sizes[place.memory_id] = offset + nbytes
        place.memory_offset_low, place.memory_offset_high = offset & 0xFFFFFFFF, offset >> 32
        return place
