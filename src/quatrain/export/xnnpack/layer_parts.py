"""A layer as the three parts that lie around its attention, each for one XNNPACK delegate.

XNNPACK reduces by no operator that ExecuTorch's partitioner takes for these shapes, and is slow to
cut each head in two. Both are said as a small linear: the mean of squares as a row of 1 / dim, and
a head's channels in the other order, with their signs, as a matrix of 0, 1, -1. Linears of
one input are one (see `joined_linears`).
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.backbone.attention import Attention
from quatrain.backbone.block import Block
from quatrain.backbone.feed_forward import FeedForward, silu
from quatrain.backbone.model import Backbone
from quatrain.backbone.norm import RMSNorm
from quatrain.backbone.rope import HalfSplitRotary, Rope
from quatrain.export.xnnpack.joined_linears import (
    GATE_AND_UP,
    QUERIES_KEYS_VALUES,
    Projecting,
    are_alike,
    cut,
)
from quatrain.linear import Int8DynActInt4WeightLinear
from quatrain.linear.int8 import Int8DynActInt8WeightLinear

_LINEARS = (Int8DynActInt4WeightLinear, Int8DynActInt8WeightLinear, nn.Linear)


class FixedLinear(nn.Module):
    """A linear whose weight [N, K] and bias [N] or None are no checkpoint's."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight, self.bias)


class LinearRMSNorm(nn.Module):
    """`RMSNorm` of float32 whose mean of squares plus eps is a linear's."""

    weight: torch.Tensor

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        if isinstance(norm.weight, nn.Parameter):
            self.weight = norm.weight
        else:
            self.register_buffer("weight", norm.weight, persistent=False)
        dim = norm.weight.shape[0]
        row = torch.full((1, dim), 1.0 / dim, device="cpu")
        self.mean = FixedLinear(row, torch.tensor([norm.eps], device="cpu"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(self.mean(x * x)) * self.weight


class LinearRotary(nn.Module):
    """The rotation of heads [1, T, heads, head_dim] by tables [1, T, 1, head_dim] of `WideRope`.

    `turned` gives each channel the one that it is rotated with, of the sign that the sine has.
    """

    def __init__(self, head_dim: int, rotated: int, half_split: bool) -> None:
        super().__init__()
        matrix = torch.zeros(head_dim, head_dim, device="cpu")
        for plane in range(rotated // 2):
            pair = (plane, plane + rotated // 2) if half_split else (2 * plane, 2 * plane + 1)
            matrix[pair] = -1.0
            matrix[pair[::-1]] = 1.0
        self.turned = FixedLinear(matrix)

    def forward(self, heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        return heads * cos + self.turned(heads) * sin


class WideRope(nn.Module):
    """The tables of `Rope`, a column for each channel of a head, for `LinearRotary`."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, rope: Rope, head_dim: int) -> None:
        super().__init__()
        self.half_split, self.head_dim = rope.half_split, head_dim
        for name in ("cos", "sin"):
            self.register_buffer(name, rope.get_buffer(name), persistent=False)

    def forward(self, start: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """[1, T, 1, head_dim] each, of positions start .. start + length - 1."""
        cos, sin = self.cos.narrow(0, start, length), self.sin.narrow(0, start, length)
        return self._wide(cos, 1.0), self._wide(sin, 0.0)

    def _wide(self, table: torch.Tensor, still: float) -> torch.Tensor:
        if self.half_split:
            rest = self.head_dim - table.shape[1]
            wide = F.pad(table, (0, rest), value=still) if rest else table
        else:
            wide = table.unsqueeze(-1).expand(-1, -1, 2)
        return wide.reshape(1, table.shape[0], 1, self.head_dim)


class QueriesKeysValues(nn.Module):
    """What attention takes: x [1, T, dim], normed and projected, and the heads of queries and keys
    rotated by cos and sin [1, T, 1, head_dim]; three of [1, T, heads, head_dim]."""

    def __init__(self, norm: nn.Module, attention: Attention) -> None:
        super().__init__()
        self.head_dim, self.norm_before_rope = attention.head_dim, attention.norm_before_rope
        self.attention_norm = norm
        parts = ("q_norm_fn", "k_norm_fn", "rotary", "scale_query")
        self.attention = Projecting(attention, QUERIES_KEYS_VALUES, parts)
        self.heads = tuple(rows // self.head_dim for rows in self.attention.rows)

    def forward(
        self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        its: Any = self.attention
        queries, keys, values = self.heads
        # -1 stands for the number of tokens, which XNNPACK finds anew in each call.
        heads = its.project(self.attention_norm(x)).view(1, -1, sum(self.heads), self.head_dim)
        both, v = cut(heads, 2, (queries + keys, values))
        if its.rotary is not None and not self._normed_before():
            both = its.rotary(both, cos, sin)
        q, k = cut(both, 2, (queries, keys))
        if its.q_norm_fn is not None:
            q, k = its.q_norm_fn(q), its.k_norm_fn(k)
        if its.rotary is not None and self._normed_before():
            q, k = its.rotary(q, cos, sin), its.rotary(k, cos, sin)
        return (q if its.scale_query is None else its.scale_query(q)), k, v

    def _normed_before(self) -> bool:
        return self.attention.q_norm_fn is not None and self.norm_before_rope


class AttentionOutput(nn.Module):
    """x [1, T, dim] plus the projection of attended [1, T, heads, head_dim]."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.attention = nn.Module()
        self.attention.wo = attention.wo

    def forward(self, attended: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        wo: Any = self.attention.wo
        return x + wo(attended.view(1, -1, wo.in_features))


class NormedFeedForward(nn.Module):
    """x [1, T, dim] plus the feed-forward of its norm."""

    def __init__(self, norm: nn.Module, feed_forward: FeedForward) -> None:
        super().__init__()
        into = GATE_AND_UP if feed_forward.w3 is not None else GATE_AND_UP[:1]
        self.ffn_norm, self.feed_forward = norm, Projecting(feed_forward, into, ("w2",))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        its: Any = self.feed_forward
        projected = its.project(self.ffn_norm(x))
        if len(its.rows) == 1:
            return x + its.w2(silu(projected))
        gate, up = cut(projected, 2, its.rows)
        return x + its.w2(silu(gate) * up)


class PartedBlock(nn.Module):
    """A `Block` whose linears lie in the three parts above, its tensors' names kept.

    It computes nothing itself: `delegated_parts` puts delegates in its parts' place.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        assert isinstance(block.attention, Attention)
        assert isinstance(block.feed_forward, FeedForward)
        assert block.attention_norm is not None and block.ffn_norm is not None
        self.rope, self.kv_source = block.rope, block.kv_source
        self.attention_norm, self.attention = block.attention_norm, block.attention
        self.ffn_norm, self.feed_forward = block.ffn_norm, block.feed_forward


def part_layers(backbone: Backbone) -> None:
    """Replace, in place, the layers of `backbone` by `PartedBlock`s, if every one fits them."""
    if not backbone.layers or not all(_fits(layer) for layer in backbone.layers):
        return
    config = backbone.config
    for index, block in enumerate(cast(list[Block], list(backbone.layers))):
        _to_linears(block, config.partial_rotary_factor)
        backbone.layers[index] = PartedBlock(block)
    for name in ("rope", "local_rope"):
        rope = getattr(backbone, name)
        if rope is not None:
            setattr(backbone, name, WideRope(rope, config.head_dim))


def _to_linears(block: Any, rotated: float) -> None:
    """Let the norms and rotations of `block` be what XNNPACK has."""
    for parent in list(block.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, RMSNorm):
                setattr(parent, name, LinearRMSNorm(child))
    rotary = block.attention.rotary
    if rotary is not None:
        head_dim = block.attention.head_dim
        half_split = isinstance(rotary, HalfSplitRotary)
        block.attention.rotary = LinearRotary(head_dim, int(head_dim * rotated), half_split)


def _fits(block: Any) -> bool:
    """Whether `block` is a Llama's: what others have besides has no place in the parts."""
    attention, feed_forward = block.attention, block.feed_forward
    if not isinstance(attention, Attention) or not isinstance(feed_forward, FeedForward):
        return False
    absent = (
        block.kv_source, block.post_attention_norm, block.post_ffn_norm, block.scale_branch,
        block.add_attn, block.add_ffn, block.per_layer, block.layer_scalar, block.alt_up,
        block.laurel, attention.v_norm, attention.temperature, attention.o_norm, attention.og,
        feed_forward.cut,
    )  # fmt: skip
    return (
        all(part is None for part in absent)
        and not attention.norm_whole
        and feed_forward.activate is silu
        and all(isinstance(norm, RMSNorm) for norm in (block.attention_norm, block.ffn_norm))
        and all(type(linear) in _LINEARS for linear in _linears(attention, feed_forward))
        and are_alike([attention.wq, attention.wk, attention.wv])
        and (feed_forward.w3 is None or are_alike([feed_forward.w1, feed_forward.w3]))
    )


def _linears(attention: Attention, feed_forward: FeedForward) -> list[nn.Module]:
    ff = (feed_forward.w1, feed_forward.w2, feed_forward.w3)
    every = (attention.wq, attention.wk, attention.wv, attention.wo, *ff)
    return [linear for linear in every if linear is not None]
