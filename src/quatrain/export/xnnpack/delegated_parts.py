"""Lowers the operations between the linears of a backbone's layers to XNNPACK delegates.

Each is lowered once, with random constants, for all equal parts, whose delegates have the same
bytes: norms' weights are arguments of a delegate, and its constants do not come from a checkpoint.
`delegated_linears` lowers the linears.
"""

import copy
import json
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from torch import nn

from quatrain.backbone.model import Backbone
from quatrain.export.lowering.executorch_internals import LoweredBackendModule
from quatrain.export.template.constants import tensors_of
from quatrain.export.template.key import module_descriptions
from quatrain.export.template.template import placeholder
from quatrain.export.xnnpack.delegated_linears import (
    Linear,
    constants_of,
    names_of,
    random_linear,
    shape_of,
)
from quatrain.export.xnnpack.joined_linears import GATE_AND_UP, QUERIES_KEYS_VALUES, join
from quatrain.export.xnnpack.layer_parts import Gated, Heads, NormedSum, PartedBlock, Sum
from quatrain.export.xnnpack.lowered_template import LoweredTemplate, lowered_template
from quatrain.export.xnnpack.ring_cache import longest_call
from quatrain.export.xnnpack.small_linears import FixedLinear, LinearRMSNorm
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


class DelegatedNorm(nn.Module):
    """A norm that is a delegate's, which all norms of one size and eps are."""

    def __init__(self, norm: LinearRMSNorm, part: DelegatedPart) -> None:
        super().__init__()
        for name, tensor in norm.named_parameters(recurse=False):
            setattr(self, name, tensor)
        for name, tensor in norm.named_buffers(recurse=False):
            self.register_buffer(name, tensor, persistent=False)
        self.part = part

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (normed,) = self.part(self, x)
        return normed


class DelegatedBlock(nn.Module):
    """A layer of linears, delegates between them and the operator of its attention."""

    attention: Any
    attention_norm: Any
    feed_forward: Any

    def __init__(self, block: PartedBlock, parts: list[DelegatedPart]) -> None:
        super().__init__()
        self.rope, self.kv_source = block.rope, block.kv_source
        for name, child in block.named_children():
            setattr(self, name, child)
        for name in _linears_of(self, FixedLinear):
            self.set_submodule(name, nn.Identity())  # its tensors are the delegates'
        self.heads, self.normed_sum, self.gated, self.sum = parts
        self.projections = join(self.attention, QUERIES_KEYS_VALUES)
        gate_only = self.feed_forward.w3 is None
        self.into = "w1" if gate_only else join(self.feed_forward, GATE_AND_UP)

    def forward(
        self, x: torch.Tensor, angles: tuple[torch.Tensor, ...], start: int, *_: None
    ) -> torch.Tensor:
        """As `Block`; `angles` are `WideRope`'s."""
        tokens, head_dim = x.shape[1], self.attention.head_dim
        projected = getattr(self.attention, self.projections)(self.attention_norm(x))
        q, k, v = self.heads(self, projected.view(1, tokens, -1, head_dim), *angles)
        attended = self.attention.attend(q, k, v, start).reshape(1, tokens, -1)
        x, normed = self.normed_sum(self, x, self.attention.wo(attended))
        (hidden,) = self.gated(self, getattr(self.feed_forward, self.into)(normed))
        (x,) = self.sum(self, x, self.feed_forward.w2(hidden))
        return x


def delegate_layers(backbone: Backbone, by_name: bool = False) -> None:
    """Replace, in place, each `PartedBlock` of `backbone`; `by_name` as in `delegate_linears`."""
    longest = longest_call(backbone)

    def delegated(part: nn.Module, examples: Examples, path: str) -> DelegatedPart:
        return _delegated(part, examples, path if by_name else None)

    def norm(of: Any, path: str) -> DelegatedNorm:
        return DelegatedNorm(of, delegated(of, (torch.empty(1, longest, of.dim),), path))

    for index, block in enumerate(backbone.layers):
        if isinstance(block, PartedBlock):
            path = f"layers.{index}"
            parts = [delegated(*each, path) for each in _parts_of(block, longest)]
            block.attention_norm = norm(block.attention_norm, f"{path}.attention_norm")
            backbone.layers[index] = DelegatedBlock(block, parts)
    if isinstance(backbone.norm, LinearRMSNorm):
        backbone.norm = norm(backbone.norm, "norm")


Examples = tuple[torch.Tensor, ...]  # inputs of the most tokens, which nobody reads


def _parts_of(block: PartedBlock, longest: int) -> list[tuple[nn.Module, Examples]]:
    heads, gated = Heads(block.attention), Gated(block.feed_forward)
    head_dim, dim = block.attention.head_dim, block.attention.wq.in_features
    x, angle = torch.empty(1, longest, dim), torch.empty(1, longest, 1, head_dim)
    return [
        (heads, (torch.empty(1, longest, sum(heads.heads), head_dim), angle, angle.clone())),
        (NormedSum(block.ffn_norm), (x, x.clone())),
        (gated, (torch.empty(1, longest, sum(gated.rows)),)),
        (Sum(), (x, x.clone())),
    ]


@dataclass
class _LoweredPart:
    """A lowered part, and its `inputs` and `outputs` as of `DelegatedPart`."""

    template: LoweredTemplate
    inputs: list[int | str]
    outputs: list[int]


_lowered_parts: dict[str, _LoweredPart] = {}  # of this process, by what tells parts apart


def _delegated(part: nn.Module, examples: Examples, path: str | None) -> DelegatedPart:
    """`part` as a delegate of its constants, or, of the block at `path`, of their names."""
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


def _lowered(part: nn.Module, examples: Examples) -> _LoweredPart:
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
