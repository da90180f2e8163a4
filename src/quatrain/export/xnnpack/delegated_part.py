"""Lowers a part of a backbone's layers to an XNNPACK delegate.

It is lowered once, with random constants, for all equal parts, whose delegates have the same bytes:
norms' weights are arguments of a delegate, and its constants do not come from a checkpoint.
"""

import copy
import json
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from torch import nn

from quatrain.export.lowering.executorch_internals import LoweredBackendModule
from quatrain.export.template.constants import tensors_of
from quatrain.export.template.key import module_descriptions
from quatrain.export.template.template import placeholder
from quatrain.export.xnnpack.delegated_linears import random_linear, shape_of
from quatrain.export.xnnpack.linear_constants import Linear, constants_of, names_of
from quatrain.export.xnnpack.lowered_template import LoweredTemplate, lowered_template
from quatrain.export.xnnpack.small_linears import FixedLinear
from quatrain.int4 import Scheme


class DelegatedPart(nn.Module):
    """A part that is a delegate's. `inputs`: of each input of it, which of the part's that is, or
    the name of a tensor below the block; `outputs`: of each result of the part, which of its."""

    def __init__(
        self, lowered: LoweredBackendModule, inputs: list[int | str], outputs: list[int]
    ) -> None:
        super().__init__()
        self.lowered, self.inputs, self.outputs = lowered, inputs, outputs

    def forward(self, block: nn.Module, *given: torch.Tensor) -> list[torch.Tensor]:
        taken = [given[i] if isinstance(i, int) else attrgetter(i)(block) for i in self.inputs]
        results = self.lowered(*taken)
        return [results[i] for i in self.outputs]


def take(delegated: nn.Module, parted: nn.Module) -> None:
    """Give the one what the other has, but for linears whose tensors are its delegate's."""
    for name, own in (*parted.named_parameters(recurse=False), *parted.named_children()):
        setattr(delegated, name, own)
    for name in _linears_of(delegated, FixedLinear):
        delegated.set_submodule(name, nn.Identity())


@dataclass
class _LoweredPart:
    """A lowered part, and its `inputs` and `outputs` as of `DelegatedPart`."""

    template: LoweredTemplate
    inputs: list[int | str]
    outputs: list[int]


_lowered_parts: dict[str, _LoweredPart] = {}  # of this process, by what tells parts apart


def delegated_part(
    part: nn.Module, examples: tuple[torch.Tensor, ...], path: str | None
) -> DelegatedPart:
    """`part` as a delegate of its constants, or, of what is at `path`, of their names. The examples
    have the most tokens; nobody reads them."""
    described = module_descriptions(part, Scheme.DYNAMIC_INT8)
    shapes = [(name, *tensor.shape) for name, tensor in tensors_of(part).items()]
    given = [tuple(example.shape) for example in examples]
    alike = json.dumps([described, shapes, given], default=str)
    if alike not in _lowered_parts:
        _lowered_parts[alike] = _lowered(part, examples)
    lowered = _lowered_parts[alike]
    constants = []
    for name, linear in _linears_of(part).items():
        constants += constants_of(linear) if path is None else names_of(linear, f"{path}.{name}")
    delegate = lowered.template.with_constants(constants)
    return DelegatedPart(delegate, lowered.inputs, lowered.outputs)


def _lowered(part: nn.Module, examples: tuple[torch.Tensor, ...]) -> _LoweredPart:
    """Lower a part like `part`, of random constants, which no two linears have in common."""
    copied = copy.deepcopy(part, {id(t): placeholder(t) for t in tensors_of(part).values()})
    for seed, (name, linear) in enumerate(_linears_of(part).items()):
        copied.set_submodule(name, random_linear(shape_of(linear, None), seed))
    constants = [each for one in _linears_of(copied).values() for each in constants_of(one)]
    template, program = lowered_template(
        copied, examples, XnnpackPartitioner(), constants, type(part).__name__
    )
    graph, signature = program.graph, program.graph_signature
    call: Any = next(node for node in graph.nodes if node.op == "call_function")
    results: Any = graph.output_node().args[0]
    tensors = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    given = {name: index for index, name in enumerate(signature.user_inputs)}
    inputs = [tensors[n.name] if n.name in tensors else given[n.name] for n in call.args[1:]]
    return _LoweredPart(template, inputs, [node.args[1] for node in results])


def _linears_of(part: nn.Module, kind: Any = Linear) -> dict[str, Any]:
    return {name: each for name, each in part.named_modules() if isinstance(each, kind)}
