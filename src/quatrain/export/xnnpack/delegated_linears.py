"""A backbone's linears as XNNPACK delegates.

All linears of a shape are the same XNNPACK graph with other constants. So one of each shape
is lowered, with random weights, and its delegate is copied for the others with the keys of
their own constants in it; lowering 211 linears costs what lowering 5 does.
"""

from functools import cache
from typing import NamedTuple

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
    XnnpackDynamicallyQuantizedPartitioner,
    XnnpackPartitioner,
)
from torch import nn

from quatrain.backbone.model import Backbone
from quatrain.export.lowering.executorch_internals import LoweredBackendModule
from quatrain.export.xnnpack.joined_linears import JoinedLinear
from quatrain.export.xnnpack.linear_constants import Linear, constants_of, members_of, names_of
from quatrain.export.xnnpack.lowered_template import LoweredTemplate, lowered_template
from quatrain.export.xnnpack.ring_cache import longest_call
from quatrain.linear import Int8DynActInt8WeightLinear
from quatrain.linear.int4 import OF_LAST_TOKEN, Int4Linear


class DelegatedLinear(nn.Module):
    """A linear that is a delegate's."""

    def __init__(self, lowered: LoweredBackendModule) -> None:
        super().__init__()
        self.lowered = lowered

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lowered(x)[0]


class Shape(NamedTuple):
    """What two linears must share to be the same XNNPACK graph."""

    kind: type[nn.Module]
    rows: int
    columns: int
    group: int | None
    has_bias: bool
    tokens: int | None  # at most; None: a single row [1, columns]


def delegate_linears(backbone: Backbone, by_name: bool = False) -> None:
    """Replace, in place, every linear by its delegate.

    With `by_name` a delegate holds, in place of each constant, the key of its `ConstantSource`.
    """
    longest = longest_call(backbone)
    joined = {one for part in backbone.modules() if isinstance(part, JoinedLinear) for one in part}
    for name, linear in list(backbone.named_modules()):
        if isinstance(linear, Linear) and linear not in joined:
            tokens = None if name in OF_LAST_TOKEN else longest
            template = _lowered(shape_of(linear, tokens))
            constants = names_of(linear, name) if by_name else constants_of(linear)
            parent, _, attribute = name.rpartition(".")
            delegated = DelegatedLinear(template.with_constants(constants))
            setattr(backbone.get_submodule(parent), attribute, delegated)


def shape_of(linear: Linear, tokens: int | None) -> Shape:
    """The shape of a linear that gets at most `tokens`."""
    first, *_ = every = members_of(linear)
    group = first.groupsize if isinstance(first, Int4Linear) else None
    has_bias = getattr(first, "bias", None) is not None
    rows, columns = sum(len(each.weight) for each in every), first.weight.shape[1]
    return Shape(type(first), rows, columns, group, has_bias, tokens)


@cache
def _lowered(shape: Shape) -> LoweredTemplate:
    """Lower a linear of that shape with random constants, which no two parts have in common."""
    like = random_linear(shape)
    # XNNPACK's graph has the most tokens in it and takes fewer too: the same bytes as for a
    # dynamic number, without the symbols that make lowering half as long again.
    tokens = () if shape.tokens is None else (shape.tokens,)
    example = torch.empty(1, *tokens, shape.columns)  # which nobody reads
    partitioner = (
        XnnpackPartitioner()
        if isinstance(like, nn.Linear)
        else XnnpackDynamicallyQuantizedPartitioner()
    )
    what = f"a linear of {shape.rows} x {shape.columns}"
    template, _ = lowered_template(like, (example,), partitioner, constants_of(like), what)
    return template


def random_linear(shape: Shape, seed: int = 0) -> Linear:
    """A linear of that shape, its tensors drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    if issubclass(shape.kind, Int4Linear):
        like = shape.kind(
            shape.columns, shape.rows, bias=shape.has_bias, groupsize=shape.group or 0
        )
        like.weight.random_(-8, 8, generator=generator)
        like.scales.uniform_(0.5, 1.5, generator=generator)
    elif issubclass(shape.kind, Int8DynActInt8WeightLinear):
        like = Int8DynActInt8WeightLinear(shape.columns, shape.rows)
        like.weight.random_(-128, 128, generator=generator)
        like.scales.uniform_(0.5, 1.5, generator=generator)
    else:
        like = nn.Linear(shape.columns, shape.rows, bias=shape.has_bias).requires_grad_(False)
        like.weight.uniform_(-1, 1, generator=generator)
    if shape.has_bias:
        like.bias.uniform_(-1, 1, generator=generator)  # type: ignore[union-attr]
    return like
