"""Selects the linears of a program to edit."""

from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase

from quatrain.errors import InputError
from quatrain.program.container import Program
from quatrain.program.inspect.linears import Linear, find_linears
from quatrain.program.vulkan.graph import VulkanGraph
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS


@dataclass(frozen=True)
class Selection:
    """Which linears to change: those whose layer is among `layers` and that match a pattern.

    `layers` None means every layer and the linears outside of layers; `patterns` are matched
    against the role ('q', 'down', 'output') and the name ('layers.3.attention.wq'), `*` allowed.
    """

    layers: frozenset[int] | None = None
    patterns: tuple[str, ...] = ("*",)

    def includes(self, linear: Linear) -> bool:
        """Whether `linear` is selected."""
        if self.layers is not None and linear.layer not in self.layers:
            return False
        names = (linear.role, linear.name)
        return any(fnmatchcase(name, pattern) for name in names for pattern in self.patterns)


def parse_layers(text: str) -> frozenset[int]:
    """Layer numbers as people write them: '0-3,5'. Raises `InputError` for anything else."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        end = last if dash else first
        if not first.isdecimal() or not end.isdecimal() or len(end) > 4:
            raise InputError(f"--layers {text}: expected numbers and ranges such as 0-3,5")
        if int(first) > int(end):
            raise InputError(f"--layers {text}: {part.strip()} is reversed; write {end}-{first}")
        numbers.update(range(int(first), int(end) + 1))
    return frozenset(numbers)


def select_linears(
    program: Program, selection: Selection
) -> list[tuple[VulkanGraph, list[Linear]]]:
    """The selected int4 linears of each Vulkan delegate. Raises `InputError` if a part of the
    selection matches nothing, or layers are selected in a method with several delegates."""
    found = [(graph, find_linears(graph)) for graph in program.require_graphs()]
    linears = [linear for _, these in found for linear in these]
    int4 = [linear for linear in linears if linear.kernel in INT4_LINEARS]
    if not int4:
        raise InputError(
            f"{program.path}: has no int4 linears, of which alone there are two schemes"
        )
    if selection != Selection():
        _require_whole_methods(program)
        _require_named(program, selection, linears, int4)
    return [
        (
            graph,
            [each for each in these if each.kernel in INT4_LINEARS and selection.includes(each)],
        )
        for graph, these in found
    ]


def _require_whole_methods(program: Program) -> None:
    methods = Counter(delegate.method for delegate in program.delegates if delegate.graph)
    for method, count in methods.items():
        if count > 1:
            raise InputError(
                f"{program.path}: the method {method} is {count} Vulkan delegates, between which "
                "its layers cannot be told; leave --layers and --linears out to change all linears"
            )


def _require_named(
    program: Program, selection: Selection, linears: list[Linear], int4: list[Linear]
) -> None:
    layers = {linear.layer for linear in linears if linear.layer is not None}
    unknown = sorted((selection.layers or frozenset()) - layers)
    if unknown:
        raise InputError(
            f"{program.path}: has no layer {unknown[0]}; "
            + (f"its layers are {min(layers)}-{max(layers)}" if layers else "none is known")
        )
    roles = ", ".join(dict.fromkeys(linear.role for linear in int4))
    for pattern in selection.patterns:
        if not any(Selection(patterns=(pattern,)).includes(linear) for linear in int4):
            raise InputError(
                f"{program.path}: no int4 linear matches {pattern!r}; the roles are {roles}, "
                f"and the names like {int4[0].name}"
            )
    if not any(selection.includes(linear) for linear in int4):
        raise InputError(
            f"{program.path}: no int4 linear of the layers given matches "
            f"{', '.join(selection.patterns)}; the roles are {roles}"
        )
