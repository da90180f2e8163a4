"""Gated delta rules, state spaces and short convolutions with delegates between their linears."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from quatrain.backbone.layers.gated_delta_net import GatedDeltaNet
from quatrain.backbone.layers.mamba import Mamba2
from quatrain.backbone.layers.short_conv import ShortConv
from quatrain.backbone.layers.softplus import negative_softplus
from quatrain.export.xnnpack.delegated_part import DelegatedPart, take
from quatrain.export.xnnpack.recurrent_parts import (
    ActivatedFilter,
    DeltaHeads,
    FilteredProduct,
    GatedRead,
    PastState,
    SpaceGate,
    SpaceHeads,
)

# A part as a delegate, of examples with the most tokens.
Delegate = Callable[..., DelegatedPart]


class DelegatedDeltaNet(nn.Module):
    """A `GatedDeltaNet` of linears, delegates between them and the operator that is the rule."""

    in_proj_qkv: Any
    in_proj_z: Any
    in_proj_b: Any
    in_proj_a: Any
    conv1d: Any
    rule: Any
    out_proj: Any
    A_log: Any
    dt_bias: Any

    def __init__(self, net: GatedDeltaNet, delegated: Delegate, longest: int) -> None:
        super().__init__()
        self.shapes = (2 * net.key_heads, net.key_dim), (net.heads, net.value_dim)
        both, values = (torch.empty(1, longest, *shape) for shape in self.shapes)
        sizes = both[0, 0].numel(), values[0, 0].numel()
        shifted = [torch.empty(1, longest, sum(sizes)) for _ in range(net.conv1d.taps)]
        self.filtered = delegated(ActivatedFilter(net.conv1d, sizes), *shifted)
        self.heads = delegated(DeltaHeads(net), both, values)
        self.gated = delegated(GatedRead(net), values, values.transpose(1, 2).contiguous())
        take(self, net)

    def forward(
        self, x: torch.Tensor, _angles: tuple[torch.Tensor, ...], start: int, *_: None
    ) -> torch.Tensor:
        """As `GatedDeltaNet`."""
        length = x.shape[1]
        mixed = self.filtered(self, *self.conv1d.shifted(self.in_proj_qkv(x), start))
        viewed = (x.view(1, length, *shape) for x, shape in zip(mixed, self.shapes, strict=True))
        by_head = self.heads(self, *viewed)
        log_decay = torch.exp(self.A_log) * negative_softplus(self.in_proj_a(x) + self.dt_bias)
        strength = torch.sigmoid(self.in_proj_b(x))
        read = self.rule.by_head(*by_head, log_decay, strength, start)
        z = self.in_proj_z(x).view(1, length, *self.shapes[1])
        (gated,) = self.gated(self, z, read)
        return self.out_proj(gated.reshape(1, length, -1))


class DelegatedMamba(nn.Module):
    """A `Mamba2` of linears, delegates between them and the operator that is the rule."""

    in_proj_z: Any
    in_proj_xBC: Any
    in_proj_dt: Any
    conv1d: Any
    space: Any
    out_proj: Any
    A_log: Any
    dt_bias: Any
    D: Any

    def __init__(self, mamba: Mamba2, delegated: Delegate, longest: int) -> None:
        super().__init__()
        self.shapes = (mamba.heads, mamba.head_dim), (2 * mamba.groups, mamba.state_size)
        values, both = (torch.empty(1, longest, *shape) for shape in self.shapes)
        sizes = values[0, 0].numel(), both[0, 0].numel()
        shifted = [torch.empty(1, longest, sum(sizes)) for _ in range(mamba.conv1d.taps)]
        self.filtered = delegated(ActivatedFilter(mamba.conv1d, sizes), *shifted)
        factors = mamba.space.smaller, mamba.space.larger
        self.heads = delegated(SpaceHeads(mamba.groups), both, values, *factors)
        by_head = values.transpose(1, 2).contiguous()
        self.past = delegated(PastState(), values, by_head, torch.empty(mamba.heads, 1))
        wide = torch.empty(1, longest, sizes[0])
        self.gated = delegated(SpaceGate(mamba), wide, wide.clone())
        take(self, mamba)

    def forward(self, x: torch.Tensor, start: int) -> torch.Tensor:
        """As `Mamba2`."""
        length = x.shape[1]
        mixed = self.filtered(self, *self.conv1d.shifted(self.in_proj_xBC(x), start))
        values, both = (
            x.view(1, length, *shape) for x, shape in zip(mixed, self.shapes, strict=True)
        )
        factors = self.space.smaller, self.space.larger
        by_head = self.heads(self, both, values, *factors)
        less_time = negative_softplus(self.in_proj_dt(x) + self.dt_bias)
        log_decay = torch.exp(self.A_log) * less_time
        read = self.space.by_head(*by_head, log_decay, -less_time, start)
        (given,) = self.past(self, values, read, self.D.unsqueeze(-1))
        (gated,) = self.gated(self, given.reshape(1, length, -1), self.in_proj_z(x))
        return self.out_proj(gated)


class DelegatedShortConv(nn.Module):
    """A `ShortConv` of linears and a delegate before the last."""

    B_proj: Any
    C_proj: Any
    x_proj: Any
    out_proj: Any
    conv: Any

    def __init__(self, conv: ShortConv, delegated: Delegate, longest: int) -> None:
        super().__init__()
        dim = len(conv.B_proj.weight)
        given = [torch.empty(1, longest, dim) for _ in range(1 + conv.conv.taps)]
        self.product = delegated(FilteredProduct(conv.conv), *given)
        take(self, conv)

    def forward(self, x: torch.Tensor, start: int) -> torch.Tensor:
        """As `ShortConv`."""
        gated = self.B_proj(x) * self.x_proj(x)
        (product,) = self.product(self, self.C_proj(x), *self.conv.shifted(gated, start))
        return self.out_proj(product)
