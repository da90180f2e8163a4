"""What lies between the linears of gated delta rules, state spaces and short convolutions, as parts
that XNNPACK computes (see `layer_parts`). The rules are operators of ExecuTorch's own."""

from typing import Any, cast

import torch
from torch import nn

from quatrain.backbone.layers.feed_forward import silu
from quatrain.backbone.layers.gated_delta_net import GatedDeltaNet
from quatrain.backbone.layers.mamba import GroupNorm, Mamba2
from quatrain.backbone.layers.norm import RMSNorm
from quatrain.backbone.layers.short_conv import shifted_sum
from quatrain.backbone.model import Backbone
from quatrain.export.operators.short_conv import KeptConv
from quatrain.export.xnnpack.joined_linears import cut
from quatrain.export.xnnpack.small_linears import LinearGroupNorm, LinearRMSNorm


class Filter(nn.Module):
    """The sum of a `KeptConv`, of what its taps are multiplied by, [1, T, dim] each."""

    bias: torch.Tensor | None

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        assert isinstance(conv, KeptConv)
        self.names = [f"tap_{index}" for index in range(conv.taps)]
        for name in (*self.names, "bias"):
            self.register_buffer(name, getattr(conv, name))

    def forward(self, *shifted: torch.Tensor) -> torch.Tensor:
        taps = [self.get_buffer(name) for name in self.names]
        return shifted_sum(list(shifted), taps, self.bias)


class ActivatedFilter(nn.Module):
    """SiLU of a `Filter`, cut into as many channels as `sizes` says."""

    def __init__(self, conv: nn.Module, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1d, self.sizes = Filter(conv), sizes

    def forward(self, *shifted: torch.Tensor) -> list[torch.Tensor]:
        return cut(silu(self.conv1d(*shifted)), 2, self.sizes)


class FilteredProduct(nn.Module):
    """c times the `Filter` of a `ShortConv`: c [1, T, dim] too."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = Filter(conv)

    def forward(self, c: torch.Tensor, *shifted: torch.Tensor) -> torch.Tensor:
        return c * self.conv(*shifted)


class DeltaHeads(nn.Module):
    """The queries and keys of a `GatedDeltaNet`, one after another [1, T, 2 * heads, d_k], at their
    lengths, and values [1, T, heads, d_v]; by head, [1, heads, T, d]."""

    tokens_of_results = 2

    def __init__(self, net: GatedDeltaNet) -> None:
        super().__init__()
        self.heads, self.q_norm, self.k_norm = net.key_heads, net.q_norm, net.k_norm

    def forward(
        self, both: torch.Tensor, values: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        q, k = cut(both, 2, (self.heads, self.heads))
        q, k = self.q_norm(q), self.k_norm(k)
        return q.transpose(1, 2), k.transpose(1, 2), values.transpose(1, 2)


class GatedRead(nn.Module):
    """What a `GatedDeltaNet` read, [1, heads, T, d_v], normed and gated by z [1, T, heads, d_v]."""

    def __init__(self, net: GatedDeltaNet) -> None:
        super().__init__()
        self.norm = net.norm

    def forward(self, z: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        return self.norm(read.transpose(1, 2)) * silu(z)


class SpaceHeads(nn.Module):
    """The values [1, T, heads, d_v] of a `Mamba2`, and what writes and reads, one after another
    [1, T, 2 * groups, d_k]; by head, for `FusedDeltaRule.by_head`, whose factors [1] it takes."""

    tokens_of_results = 2

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(
        self,
        both: torch.Tensor,
        values: torch.Tensor,
        smaller: torch.Tensor,
        larger: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        write, read = (each.transpose(1, 2) for each in cut(both, 2, (self.groups, self.groups)))
        return read, write * smaller, values.transpose(1, 2) * larger


class PastState(nn.Module):
    """What a `Mamba2` read, [1, heads, T, d_v], and the part of its values [1, T, heads, d_v] that
    D [heads, 1] says."""

    def forward(self, values: torch.Tensor, read: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
        return read.transpose(1, 2) + values * d


class SpaceGate(nn.Module):
    """The end of a `Mamba2`: what it gives, normed, and gated by z, [1, T, dim] both."""

    def __init__(self, space: Mamba2) -> None:
        super().__init__()
        self.norm, self.norm_before_gate = space.norm, space.norm_before_gate

    def forward(self, given: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        gate = silu(z)
        if self.norm is None:
            return given * gate
        return self.norm(given) * gate if self.norm_before_gate else self.norm(given * gate)


def part_recurrences(backbone: Backbone) -> None:
    """Make linears, in place, of the norms that the parts above have."""
    for part in list(backbone.modules()):
        if isinstance(part, GatedDeltaNet):
            for name in ("q_norm", "k_norm", "norm"):
                setattr(part, name, LinearRMSNorm(cast(RMSNorm, getattr(part, name))))
        if isinstance(part, Mamba2) and part.norm is not None:
            in_groups = isinstance(part.norm, GroupNorm)
            part.norm = (LinearGroupNorm if in_groups else LinearRMSNorm)(cast(Any, part.norm))
