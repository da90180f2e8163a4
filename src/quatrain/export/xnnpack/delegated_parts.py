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
from quatrain.export.xnnpack.layer_parts import (
    Gated,
    Heads,
    NormedSum,
    PartedAttention,
    PartedBlock,
    PartedFeedForward,
    Sum,
)
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


class DelegatedAttention(nn.Module):
    """A `PartedAttention` of linears, a delegate between them and the operator that attends."""

    wq: Any
    wo: Any
    attend: Any

    def __init__(self, attention: PartedAttention, heads: DelegatedPart) -> None:
        super().__init__()
        _take(self, attention)
        self.head_dim, self.heads = attention.head_dim, heads
        self.projections = join(self, QUERIES_KEYS_VALUES)

    def forward(
        self, x: torch.Tensor, angles: tuple[torch.Tensor, ...], start: int, *_: None
    ) -> torch.Tensor:
        """As `Attention`; `angles` are `WideRope`'s."""
        tokens = x.shape[1]
        projected = getattr(self, self.projections)(x)
        q, k, v = self.heads(self, projected.view(1, tokens, -1, self.head_dim), *angles)
        return self.wo(self.attend(q, k, v, start).reshape(1, tokens, -1))


class DelegatedFeedForward(nn.Module):
    """A `PartedFeedForward` of linears and a delegate between them."""

    w2: Any

    def __init__(self, feed_forward: PartedFeedForward, gated: DelegatedPart) -> None:
        super().__init__()
        _take(self, feed_forward)
        self.gated = gated
        self.into = "w1" if feed_forward.w3 is None else join(self, GATE_AND_UP)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        (hidden,) = self.gated(self, getattr(self, self.into)(x))
        return self.w2(hidden)


class DelegatedSum(nn.Module):
    """A `Sum` that is a delegate's."""

    def __init__(self, part: DelegatedPart) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
        (total,) = self.part(self, x, added)
        return total


class DelegatedBlock(nn.Module):
    """A `PartedBlock`: a delegate adds to the stream and norms it for the feed-forward."""

    attention_norm: Any
    attention: Any
    feed_forward: Any

    def __init__(self, block: PartedBlock, normed_sum: DelegatedPart, total: DelegatedSum) -> None:
        super().__init__()
        self.rope, self.kv_source = block.rope, block.kv_source
        _take(self, block)
        self.normed_sum, self.sum = normed_sum, total

    def forward(
        self, x: torch.Tensor, angles: tuple[torch.Tensor, ...], start: int, *_: None
    ) -> torch.Tensor:
        """As `Block`."""
        attended = self.attention(self.attention_norm(x), angles, start)
        x, normed = self.normed_sum(self, x, attended)
        return self.sum(x, self.feed_forward(normed))


def _take(delegated: nn.Module, parted: nn.Module) -> None:
    """Give the one what the other has, but for linears whose tensors are its delegate's."""
    for name, child in parted.named_children():
        setattr(delegated, name, child)
    for name in _linears_of(delegated, FixedLinear):
        delegated.set_submodule(name, nn.Identity())


def delegate_layers(backbone: Backbone, by_name: bool = False) -> None:
    """Replace, in place, what `part_layers` made; `by_name` as in `delegate_linears`."""
    longest, dim = longest_call(backbone), backbone.config.dim
    x = torch.empty(1, longest, dim)

    def delegated(part: nn.Module, path: str, *examples: torch.Tensor) -> DelegatedPart:
        return _delegated(part, examples, path if by_name else None)

    def in_place_of(part: nn.Module, path: str) -> nn.Module:
        if isinstance(part, LinearRMSNorm):
            return DelegatedNorm(part, delegated(part, path, x))
        if isinstance(part, Sum):
            return DelegatedSum(delegated(part, path, x, x.clone()))
        if isinstance(part, PartedAttention):
            heads = Heads(part)
            shape = 1, longest, sum(heads.heads), part.head_dim
            angle = torch.empty(1, longest, 1, part.head_dim)
            given = torch.empty(shape), angle, angle.clone()
            return DelegatedAttention(part, delegated(heads, path, *given))
        if isinstance(part, PartedFeedForward):
            gated = Gated(part)
            given = torch.empty(1, longest, sum(gated.rows))
            return DelegatedFeedForward(part, delegated(gated, path, given))
        return part

    for index, block in enumerate(backbone.layers):
        path = f"layers.{index}"
        for name, part in list(block.named_children()):
            if not (isinstance(block, PartedBlock) and part is block.ffn_norm):
                setattr(block, name, in_place_of(part, f"{path}.{name}"))
        if isinstance(block, PartedBlock):
            normed_sum = delegated(NormedSum(block.ffn_norm), path, x, x.clone())
            total = DelegatedSum(delegated(Sum(), path, x, x.clone()))
            backbone.layers[index] = DelegatedBlock(block, normed_sum, total)
    backbone.norm = in_place_of(backbone.norm, "norm")


@dataclass
class _LoweredPart:
    """A lowered part, and its `inputs` and `outputs` as of `DelegatedPart`."""

    template: LoweredTemplate
    inputs: list[int | str]
    outputs: list[int]


_lowered_parts: dict[str, _LoweredPart] = {}  # of this process, by what tells parts apart


def _delegated(
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
