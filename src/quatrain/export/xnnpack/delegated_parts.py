"""A backbone's layers as XNNPACK delegates, three around the attention of each.

As for single linears (`delegated_linears`) those of one layer are lowered, with random weights, and
copied for all that are like it, with the keys of each one's own constants. Only linears' weights
are in a delegate; norms' and the like are handed to it.
"""

import copy
import json
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import nn

from quatrain.backbone.model import Backbone
from quatrain.executorch_wheel import changed
from quatrain.export.constants import tensors_of
from quatrain.export.executorch_internals import LoweredBackendModule, edge_config, lowered_parts
from quatrain.export.template import hollow
from quatrain.export.template_key import module_descriptions
from quatrain.export.xnnpack.copied_delegate import copied_delegate
from quatrain.export.xnnpack.delegate_keys import constant_key, with_keys
from quatrain.export.xnnpack.delegated_linears import (
    Linear,
    constants_of,
    names_of,
    random_linear,
    shape_of,
)
from quatrain.export.xnnpack.layer_parts import (
    AttentionOutput,
    NormedFeedForward,
    PartedBlock,
    QueriesKeysValues,
)
from quatrain.export.xnnpack.ring_cache import longest_call
from quatrain.int4 import Scheme
from quatrain.quiet import quiet


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


class DelegatedBlock(nn.Module):
    """A layer of three delegates and the operator of its attention."""

    attention: Any

    def __init__(self, block: PartedBlock, parts: list[DelegatedPart]) -> None:
        super().__init__()
        self.rope, self.kv_source = block.rope, block.kv_source
        for name, child in block.named_children():
            setattr(self, name, child)
        for name in _linears_of(self):
            self.set_submodule(name, nn.Identity())  # its tensors are the delegates'
        self.before, self.after, self.feed = parts

    def forward(
        self, x: torch.Tensor, angles: tuple[torch.Tensor, ...], start: int, *_: None
    ) -> torch.Tensor:
        """As `Block`; `angles` are `WideRope`'s."""
        q, k, v = self.before(self, x, *angles)
        attended = self.attention.attend(q, k, v, start)
        (x,) = self.after(self, attended, x)
        (x,) = self.feed(self, x)
        return x


def delegate_layers(backbone: Backbone, by_name: bool = False) -> None:
    """Replace, in place, each `PartedBlock` of `backbone`; `by_name` as `delegate_linears` has
    it."""
    lowered: dict[str, _Template] = {}
    longest = longest_call(backbone)
    for index, block in enumerate(backbone.layers):
        if isinstance(block, PartedBlock):
            parts = _parts_of(block, longest)
            delegates = [
                _delegated(part, examples, lowered, f"layers.{index}" if by_name else None)
                for part, examples in parts
            ]
            backbone.layers[index] = DelegatedBlock(block, delegates)


Examples = tuple[torch.Tensor, ...]  # inputs of the most tokens, which nobody reads


def _parts_of(block: PartedBlock, longest: int) -> list[tuple[nn.Module, Examples]]:
    attention, norm = block.attention, block.ffn_norm
    head_dim, dim = attention.head_dim, attention.wq.in_features
    x, angle = torch.empty(1, longest, dim), torch.empty(1, longest, 1, head_dim)
    attended = torch.empty(1, longest, attention.wo.in_features // head_dim, head_dim)
    return [
        (QueriesKeysValues(block.attention_norm, attention), (x, angle, angle.clone())),
        (AttentionOutput(attention), (attended, x)),
        (NormedFeedForward(norm, block.feed_forward), (x,)),
    ]


@dataclass
class _Template:
    """A lowered part, the keys of its constants in order, and how it is called."""

    lowered: LoweredBackendModule
    keys: list[str]
    inputs: list[int | str]
    outputs: list[int]


def _delegated(
    part: nn.Module, examples: Examples, lowered: dict[str, _Template], path: str | None
) -> DelegatedPart:
    """`part` as a delegate of its constants, or, of the block at `path`, of their names."""
    described = module_descriptions(part, Scheme.DYNAMIC_INT8)
    shapes = [(name, *tensor.shape) for name, tensor in tensors_of(part).items()]
    alike = json.dumps([described, shapes], default=str)
    if alike not in lowered:
        lowered[alike] = _lowered(part, examples)
    template = lowered[alike]
    constants = []
    for name, linear in _linears_of(part).items():
        constants += constants_of(linear) if path is None else names_of(linear, f"{path}.{name}")
    stored = [(constant_key(data, prefix), data) for prefix, data in constants]
    keys = dict(zip(template.keys, (key for key, _ in stored), strict=True))
    blob = with_keys(template.lowered.processed_bytes, keys)
    delegate = copied_delegate(template.lowered, blob, stored)
    return DelegatedPart(delegate, template.inputs, template.outputs)


def _lowered(part: nn.Module, examples: Examples) -> _Template:
    """Lower a part like `part`, of random constants, which no two linears have in common."""
    twin = copy.deepcopy(part, {id(t): hollow(t) for t in tensors_of(part).values()})
    for seed, (name, linear) in enumerate(_linears_of(part).items()):
        twin.set_submodule(name, random_linear(shape_of(linear, None), seed))
    with torch.no_grad(), quiet():
        program = torch.export.export(twin, examples)
        edge = to_edge_transform_and_lower(
            program, partitioner=[XnnpackPartitioner()], compile_config=edge_config()
        ).exported_program()
    found = lowered_parts(edge.graph_module)
    calls: list[Any] = [
        node for node in edge.graph_module.graph.nodes if node.op == "call_function"
    ]
    results: Any = edge.graph_module.graph.output_node().args[0]
    keys = [
        constant_key(data, p) for m in _linears_of(twin).values() for p, data in constants_of(m)
    ]
    whole = len(found) == 1 and len(calls) == 1 + len(results)
    if not whole or any(found[0].processed_bytes.count(key.encode()) != 1 for key in keys):
        what = f"XNNPACK's lowering of {type(part).__name__}"
        expected = f"one delegate with its constants, in {1 + len(results)} calls"
        raise changed("executorch", what, f"{len(found)} delegates in {len(calls)} calls", expected)
    signature = edge.graph_signature
    tensors = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    given = {name: index for index, name in enumerate(signature.user_inputs)}
    inputs = [tensors[n.name] if n.name in tensors else given[n.name] for n in calls[0].args[1:]]
    return _Template(found[0], keys, inputs, [node.args[1] for node in results])


def _linears_of(part: nn.Module) -> dict[str, Linear]:
    found: dict[str, Linear] = {}
    for name, each in part.named_modules():
        if isinstance(each, Linear) and name.rpartition(".")[0] not in found:  # else it is joined
            found[name] = each
    return found
