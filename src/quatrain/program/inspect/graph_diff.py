"""Compares two graphs, operator by operator: fixed arguments, types and constants.

Each graph is cut into sections that end with a linear. Sections that lead to the same linear are
laid side by side, and in them the operators of the same kind, in order.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import Any

import numpy as np

from quatrain.program.container import Program
from quatrain.program.inspect.linears import Linear
from quatrain.program.vulkan.graph import (
    Constant,
    Operator,
    Plain,
    SymInt,
    Tensor,
    ValueList,
    VulkanGraph,
)

_CHUNK = 1 << 22


@dataclass(frozen=True)
class Difference:
    """One thing that differs; `first` and `second` say what each program has."""

    what: str
    first: str
    second: str


@dataclass
class _Section:
    """What leads to the linears of one name, and those linears (mostly one)."""

    before: list[Operator] = field(default_factory=list)
    linears: list[Operator] = field(default_factory=list)


@dataclass
class GraphSide:
    """One of the two programs: its Vulkan graph and the linears in it."""

    program: Program
    graph: VulkanGraph
    linears: list[Linear]

    def sections(self) -> dict[str, _Section]:
        """The graph's sections by the name of their linear; '' for what follows the last."""
        found: dict[str, _Section] = {}
        start = 0
        for linear in self.linears:
            section = found.setdefault(linear.name, _Section())
            section.before += self.graph.operators[start : linear.operator]
            section.linears.append(self.graph.operators[linear.operator])
            start = linear.operator + 1
        found[""] = _Section(self.graph.operators[start:])
        return found


@dataclass
class GraphDiff:
    """Lays `first` beside `second`; `operators` and `constants` are the differences found."""

    first: GraphSide
    second: GraphSide
    operators: list[Difference] = field(default_factory=list)
    constants: list[Difference] = field(default_factory=list)
    _equal: dict[tuple[Constant, Constant], bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        one, two = self.first.sections(), self.second.sections()
        for name in {**one, **two}:
            a, b = one.get(name, _Section()), two.get(name, _Section())
            seen: Counter[str] = Counter()
            for pair in _aligned(a.before, b.before):
                kind = next(operator.kind for operator in pair if operator)
                seen[kind] += 1
                self._compare(_label(name, kind, seen[kind]), *pair)
            for pair in zip_longest(a.linears, b.linears):
                self._compare(name, *pair)

    def both_hold(self, first: int, second: int) -> bool:
        """Whether both programs have the bytes of two constants, not a `.ptd` beside one."""
        pairs = (self.first, first), (self.second, second)
        stored = [(side.program, side.graph.stored(value)) for side, value in pairs]
        return all(constant and program.holds(constant) for program, constant in stored)

    def same_constant(self, first: int, second: int) -> bool:
        """Whether two values are constants of the same bytes; each pair is read once. Of those in
        a `.ptd` beside a program, whether they have the same name and size."""
        a, b = self.first.graph.stored(first), self.second.graph.stored(second)
        if a is None or b is None:
            return False
        if (a, b) not in self._equal:
            self._equal[a, b] = self._same_bytes(a, b)
        return self._equal[a, b]

    def _same_bytes(self, a: Constant, b: Constant) -> bool:
        one, two = self.first.program, self.second.program
        if not (one.holds(a) and two.holds(b)):  # in a .ptd beside the program
            return a == b
        same = same_bytes(self.first.graph.fetch(a), self.second.graph.fetch(b))
        one.release_memory()
        two.release_memory()
        return same

    def _compare(self, label: str, a: Operator | None, b: Operator | None) -> None:
        if a is None or b is None:
            texts = ("absent" if a is None else "present", "absent" if b is None else "present")
            self.operators.append(Difference(label, *texts))
            return
        one, two = a.named_args, b.named_args
        differing: list[tuple[str, str]] = []
        if a.kind == b.kind and (a.name, one.keys()) != (b.name, two.keys()):
            differing.append((f"{a.name}({', '.join(one)})", f"{b.name}({', '.join(two)})"))
        for name in [name for name in one if name in two]:
            ids = one[name], two[name]
            texts = _text(self.first.graph, ids[0]), _text(self.second.graph, ids[1])
            if self.first.graph.stored(ids[0]) and self.second.graph.stored(ids[1]):
                if texts[0] != texts[1]:
                    self.constants.append(Difference(f"{label}, {name}", *texts))
                elif not self.same_constant(*ids):
                    other = f"{texts[1]}, other bytes"
                    self.constants.append(Difference(f"{label}, {name}", texts[0], other))
            elif texts[0] != texts[1]:
                differing.append((f"{name} {texts[0]}", f"{name} {texts[1]}"))
        if differing:
            texts = [", ".join(pair[side] for pair in differing) for side in (0, 1)]
            self.operators.append(Difference(label, *texts))

    def same_order(self) -> bool:
        """Whether both run the same operators in the same order."""
        names = [[op.name for op in side.graph.operators] for side in (self.first, self.second)]
        return names[0] == names[1]

    def same_connections(self) -> bool:
        """Whether the operators of both, the same in order, read each other's values alike."""
        return _connections(self.first.graph) == _connections(self.second.graph)

    def same_memory(self) -> bool:
        """Whether graphs connected alike label their values alike in memory."""
        return _memory(self.first.graph) == _memory(self.second.graph)


def same_bytes(first: memoryview, second: memoryview) -> bool:
    """Whether two views hold the same bytes; compared in blocks, so that no copy is made."""
    if len(first) != len(second):
        return False
    a, b = np.frombuffer(first, np.uint8), np.frombuffer(second, np.uint8)
    return all(
        np.array_equal(a[i : i + _CHUNK], b[i : i + _CHUNK]) for i in range(0, len(a), _CHUNK)
    )


def _aligned(
    first: list[Operator], second: list[Operator]
) -> Iterator[tuple[Operator | None, Operator | None]]:
    """Pairs of operators of the same kind in order; None if only one side has one."""
    one, two = [op.kind for op in first], [op.kind for op in second]
    if one == two:
        yield from zip(first, second, strict=True)
        return
    for tag, a, b, c, d in SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        if tag == "equal":
            yield from zip(first[a:b], second[c:d], strict=True)
        else:
            yield from ((operator, None) for operator in first[a:b])
            yield from ((None, operator) for operator in second[c:d])


def _label(linear: str, kind: str, count: int) -> str:
    """Such as 'layers.3.et_vk.rms_norm before attention.wq'; `count` tells one from another."""
    which = f"{kind} {count}" if count > 1 else kind
    if not linear:
        return f"{which} after the last linear"
    head, _, rest = linear.partition(".")
    layer, _, name = rest.partition(".")
    if head == "layers":
        return f"layers.{layer}.{which} before {name}"
    return f"{which} before {linear}"


def _text(graph: VulkanGraph, value_id: int) -> str:
    value = graph.values[value_id]
    if isinstance(value, Tensor):
        text = f"{value.dtype}[{'×'.join(map(str, value.shape))}]"
        return text if value.constant is None else f"{text} constant"
    if isinstance(value, ValueList):
        return f"({', '.join(_text(graph, item) for item in value.items)})"
    if isinstance(value, SymInt):
        return f"computed, at first {value.value}"
    return "none" if value.value is None else str(value.value)


def _connections(graph: VulkanGraph) -> list[Any]:
    """Which values go in, are read and written in turn, and come out, numbered by first use."""
    numbers = _numbers(graph)

    def number(value_id: int) -> Any:
        value = graph.values[value_id]
        if isinstance(value, ValueList):
            return tuple(number(item) for item in value.items)
        return numbers.get(value_id)

    used = [[*op.args] for op in graph.operators]
    return [[number(i) for i in ids] for ids in (graph.inputs, *used, graph.outputs)]


def _numbers(graph: VulkanGraph) -> dict[int, int]:
    """A number for each tensor and symbolic integer, in the order of their first use."""
    numbers: dict[int, int] = {}
    used = (i for op in graph.operators for i in op.args)
    for item in graph.flat((*graph.inputs, *used, *graph.outputs)):
        if not isinstance(graph.values[item], Plain):
            numbers.setdefault(item, len(numbers))
    return numbers


def _memory(graph: VulkanGraph) -> list[Any]:
    """How each tensor is kept, and which share memory; values and memory by first use."""
    shared: dict[int | None, int] = {}
    tensors = [v for i in _numbers(graph) if isinstance(v := graph.values[i], Tensor)]
    return [graph.storage_override, graph.layout_override] + [
        (v.storage, v.layout, v.staging_dtype == v.dtype or v.staging_dtype)
        + (() if v.mem_obj_id is None else (shared.setdefault(v.mem_obj_id, len(shared)),))
        for v in tensors
    ]
