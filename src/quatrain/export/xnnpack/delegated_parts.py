"""Replaces the operations between the linears of a backbone's layers by XNNPACK delegates;
`delegated_linears` does the linears."""

from typing import Any

import torch
from torch import nn

from quatrain.backbone.layers.gated_delta_net import GatedDeltaNet
from quatrain.backbone.layers.mamba import Mamba2
from quatrain.backbone.layers.short_conv import ShortConv
from quatrain.backbone.model import Backbone
from quatrain.export.xnnpack.delegated_part import DelegatedPart, delegated_part, take
from quatrain.export.xnnpack.delegated_recurrences import (
    DelegatedDeltaNet,
    DelegatedMamba,
    DelegatedShortConv,
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
from quatrain.export.xnnpack.ring_cache import longest_call
from quatrain.export.xnnpack.small_linears import LinearRMSNorm


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
        take(self, attention)
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
        take(self, feed_forward)
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
        take(self, block)
        self.normed_sum, self.sum = normed_sum, total

    def forward(
        self, x: torch.Tensor, angles: tuple[torch.Tensor, ...], start: int, *_: None
    ) -> torch.Tensor:
        """As `Block`."""
        attended = self.attention(self.attention_norm(x), angles, start)
        x, normed = self.normed_sum(self, x, attended)
        return self.sum(x, self.feed_forward(normed))


_RECURRENCES: dict[type[nn.Module], Any] = {
    GatedDeltaNet: DelegatedDeltaNet, Mamba2: DelegatedMamba, ShortConv: DelegatedShortConv,
}  # fmt: skip


def delegate_layers(backbone: Backbone, by_name: bool = False) -> None:
    """Replace, in place, what `part_layers` made; `by_name` as in `delegate_linears`."""
    longest, dim = longest_call(backbone), backbone.config.dim
    x = torch.empty(1, longest, dim)

    def delegated(part: nn.Module, path: str, *examples: torch.Tensor) -> DelegatedPart:
        return delegated_part(part, examples, path if by_name else None)

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
        for kind, made in _RECURRENCES.items():
            if isinstance(part, kind):
                return made(part, lambda of, *given: delegated(of, path, *given), longest)
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
