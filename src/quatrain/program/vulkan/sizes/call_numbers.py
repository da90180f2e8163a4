"""The integers that a graph computes from the sizes of its inputs, in the longest call."""

from dataclasses import dataclass

from quatrain.program.vulkan.graph import Plain, SymInt, Tensor, VulkanGraph


@dataclass(frozen=True)
class CallNumber:
    """`more` than the integer that the value `beyond` holds, which only a call gives; than 0 where
    that is None."""

    more: int
    beyond: int | None = None

    @property
    def known(self) -> int | None:
        """What it is, where no call is needed to say so."""
        return self.more if self.beyond is None else None


def call_numbers(graph: VulkanGraph) -> dict[int, CallNumber]:
    """Of each integer value of the graph, fixed or computed."""
    found = {
        index: CallNumber(value.value) if isinstance(value, Plain) else CallNumber(0, index)
        for index, value in enumerate(graph.values)
        if isinstance(value, SymInt) or (isinstance(value, Plain) and value.kind == "int")
    }
    for operator in graph.operators:
        a, b = (found.get(argument) for argument in (*operator.args, -1, -1)[:2])
        x = graph.values[operator.args[0]]
        if operator.out not in found or b is None:
            continue
        if operator.kind == "sym_size" and isinstance(x, Tensor) and x.shape:
            found[operator.out] = CallNumber(x.shape[(b.known or 0) % len(x.shape)])
        elif a is not None and (computed := _computed(operator.kind, a, b)):
            found[operator.out] = computed
    return found


def _computed(kind: str, a: CallNumber, b: CallNumber) -> CallNumber | None:
    """None if it does not follow without a call."""
    if kind == "add" and None in (a.beyond, b.beyond):
        return CallNumber(a.more + b.more, b.beyond if a.beyond is None else a.beyond)
    if kind == "sub" and b.beyond in (None, a.beyond):
        return CallNumber(a.more - b.more, a.beyond if b.beyond is None else None)
    if kind in ("mul", "floordiv") and a.beyond is b.beyond is None and b.more:
        return CallNumber(a.more * b.more if kind == "mul" else a.more // b.more)
    return None
