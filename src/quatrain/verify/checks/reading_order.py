"""Checks that a program reads constants in the order in which the model uses them.

If two constants are exchanged, both are still stored, and the logits may not show it: no text may
be routed to some experts, and the difference of two norms may be within rounding.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from quatrain.backbone.model import Backbone
from quatrain.export.xnnpack.delegate_keys import keys_in
from quatrain.program import Program, VulkanGraph
from quatrain.verify.checks.packed_constants import PackedCheck
from quatrain.verify.checks.stored_data import StoredData

_FORWARD = "forward"


def check_order(read: Iterable[set[str]], backbone: Backbone) -> list[PackedCheck]:
    """The first of those names, of modules of `backbone` or of their tensors in the order in which
    a program has `read` them first, that is read before one with which the model computes first: of
    two that are exchanged the one. Of what may be several nothing is said.

    Matrices have an order, and vectors have another: a program may read what a norm multiplies by
    before the linear of its gate. Shapes do not matter: in a program a matrix may have the rows of
    several linears, or of two that are equal one a bias."""
    spans, latest = _spans(backbone), {}
    for name in dict.fromkeys(name for names in read if len(names) == 1 for name in names):
        span = spans.get(name) or spans.get(name.rpartition(".")[0])
        if span is None:
            continue
        is_matrix = _is_matrix(backbone, name)
        early, its = latest.get(is_matrix, (name, span))
        if span.end < its.begin:
            why = f"is read before {name}, with which the model computes first: are two exchanged?"
            return [PackedCheck(early, why)]
        if span.begin >= its.begin:
            latest[is_matrix] = name, span
    return []


def _is_matrix(backbone: Backbone, name: str) -> bool:
    """Whether the tensor of that name is one, or a module of that name has one. A convolution by
    channel is vectors, its taps."""
    path, _, own = name.rpartition(".")
    its = getattr(backbone.get_submodule(path), own)
    return not isinstance(its, torch.Tensor) or its.dim() == 2


def check_read(read: Iterable[set[str]], stored: StoredData) -> list[PackedCheck]:
    """The problems of constants that are stored but not among those that a program has `read`:
    another one is read instead."""
    return [
        PackedCheck(name, "is stored but never read: another may be read instead")
        for name in sorted(stored.known.difference(*read))
    ]


def names_read(
    program: Program, graph: VulkanGraph | None, stored: StoredData, linears: dict[int, str]
) -> Iterator[set[str]]:
    """Whose constants the forward method reads, in order; of a Vulkan program its `graph`, whose
    int4 linears are named by operator in `linears`. There are several names where several are
    equal, or one is the beginning of another."""
    found = _in_graph(graph, stored, linears) if graph else _in_method(program, stored)
    return (names - {""} for names in found)


def _in_graph(
    graph: VulkanGraph, stored: StoredData, linears: dict[int, str]
) -> Iterator[set[str]]:
    copied = {op.out: op.args[0] for op in graph.operators if op.kind == "et_vk.prepack"}
    constants = {id(constant): index for index, constant in enumerate(graph.constants)}
    for index, operator in enumerate(graph.operators):
        if index in linears:
            yield {linears[index]}
        if operator.kind != "et_vk.prepack":
            for value in graph.inputs_of(operator):
                constant = graph.stored(copied.get(value, value))
                if constant is not None:
                    yield stored.names_of(constants[id(constant)])


def _in_method(program: Program, stored: StoredData) -> Iterator[set[str]]:
    for plan in program.root.execution_plan:
        if plan.name != _FORWARD:
            continue
        for step in program.methods[_FORWARD].instructions:
            for value in (plan.values[each].val for each in step.args):
                yield stored.names_beside(getattr(value, "data_buffer_idx", 0))
            if step.kind == "delegate":
                for key in keys_in(bytes(program.delegates[int(step.target)].blob)):
                    yield stored.names_of(key)


@dataclass
class _Span:
    """From when to when a module's first call computes, or when a tensor is first read."""

    begin: int
    end: int = 0


class _Reads(TorchFunctionMode):
    """Notes in `spans` when a tensor of a backbone is first read, and counts what it sees."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.spans: dict[str, _Span] = {}
        self.now = 0
        tensors = [*backbone.named_parameters(), *backbone.named_buffers()]
        self._names = {id(tensor): name for name, tensor in tensors}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.now += 1
        for name in (self._names.get(id(arg)) for arg in args):
            if name is not None and func.__name__ != "__get__":  # such as that of its shape
                self.spans.setdefault(name, _Span(self.now, self.now))
        return func(*args, **(kwargs or {}))

    def watch(self, path: str, module: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
        """Note when the first call of `module` begins and ends."""

        def begins(*_given: object) -> None:
            self.now += 1
            self.spans.setdefault(path, _Span(self.now))

        def ends(*_given: object) -> None:
            self.spans[path].end = self.spans[path].end or self.now

        return [module.register_forward_pre_hook(begins), module.register_forward_hook(ends)]


@torch.inference_mode()
def _spans(backbone: Backbone) -> dict[str, _Span]:
    """Of each module that a call of one token runs, and each tensor that it reads, by name."""
    reads = _Reads(backbone)
    handles = [
        one for path, module in backbone.named_modules() for one in reads.watch(path, module)
    ]
    try:
        backbone.reset()
        with reads:
            backbone(torch.tensor([[0]]), torch.tensor([0]))
        backbone.reset()
    finally:
        for handle in handles:
            handle.remove()
    return reads.spans
