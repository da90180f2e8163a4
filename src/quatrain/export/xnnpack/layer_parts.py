"""A layer as parts that are XNNPACK delegates, around the operator of its attention.

A layer's linears are delegates of their own. What is computed between them is alike in every layer,
and one delegate for all (see `quatrain.program.file.shared_delegates`).
"""

from typing import Any, cast

import torch
from torch import nn

from quatrain.backbone.block import Block
from quatrain.backbone.layers.attention import Attention
from quatrain.backbone.layers.feed_forward import FeedForward, silu
from quatrain.backbone.layers.norm import RMSNorm
from quatrain.backbone.layers.rope import HalfSplitRotary
from quatrain.backbone.model import Backbone
from quatrain.export.xnnpack.joined_linears import (
    GATE_AND_UP,
    QUERIES_KEYS_VALUES,
    are_alike,
    cut,
)
from quatrain.export.xnnpack.small_linears import LinearRMSNorm, LinearRotary, WideRope
from quatrain.linear import Int8DynActInt4WeightLinear, Int8DynActInt8WeightLinear

# The modules that have a place in the parts.
_OF_BLOCK = {"attention_norm", "attention", "ffn_norm", "feed_forward"}
_OF_ATTENTION = {
    "wq", "wk", "wv", "q_norm_fn", "k_norm_fn", "rotary", "scale_query", "attend", "wo"
}  # fmt: skip
_OF_FEED_FORWARD = {"w1", "w2", "w3"}
_LINEARS = (Int8DynActInt4WeightLinear, Int8DynActInt8WeightLinear, nn.Linear)


class Heads(nn.Module):
    """What attention takes of the heads [1, T, heads, head_dim] of queries, keys and values: these
    three apart, queries and keys rotated by cos and sin [1, T, 1, head_dim]."""

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.head_dim, self.norm_before_rope = attention.head_dim, attention.norm_before_rope
        self.attention = nn.Module()
        for name in ("q_norm_fn", "k_norm_fn", "rotary", "scale_query"):
            setattr(self.attention, name, getattr(attention, name))
        linears = [getattr(attention, name) for name in QUERIES_KEYS_VALUES]
        self.heads = tuple(len(each.weight) // self.head_dim for each in linears)

    def forward(
        self, heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        its: Any = self.attention
        queries, keys, values = self.heads
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
        its: Any = self.attention
        return its.q_norm_fn is not None and self.norm_before_rope


class NormedSum(nn.Module):
    """x plus what attention gave, [1, T, dim] both, and its norm."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.ffn_norm = norm

    def forward(self, x: torch.Tensor, added: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x + added
        return x, self.ffn_norm(x)


class Gated(nn.Module):
    """What a feed-forward gives its last linear of gate and up, one after another, or of what it
    has instead."""

    def __init__(self, feed_forward: FeedForward) -> None:
        super().__init__()
        names = GATE_AND_UP if feed_forward.w3 is not None else GATE_AND_UP[:1]
        self.rows = tuple(len(getattr(feed_forward, name).weight) for name in names)

    def forward(self, projected: torch.Tensor) -> torch.Tensor:
        if len(self.rows) == 1:
            return silu(projected)
        gate, up = cut(projected, 2, self.rows)
        return silu(gate) * up


class Sum(nn.Module):
    """x plus what the feed-forward gave, [1, T, dim] both."""

    def forward(self, x: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
        return x + added


class PartedBlock(nn.Module):
    """A `Block` with the parts above between its linears, its tensors' names kept.

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
    if not backbone.layers or not all(_is_like_llama(layer) for layer in backbone.layers):
        return
    config = backbone.config
    for index, block in enumerate(cast(list[Block], list(backbone.layers))):
        _to_linears(block, config.partial_rotary_factor)
        backbone.layers[index] = PartedBlock(block)
    if isinstance(backbone.norm, RMSNorm):
        backbone.norm = LinearRMSNorm(backbone.norm)
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


def _is_like_llama(block: Any) -> bool:
    """Whether `block` is a Llama's: what others have besides has no place in the parts."""
    attention, feed_forward = block.attention, block.feed_forward
    if not isinstance(attention, Attention) or not isinstance(feed_forward, FeedForward):
        return False
    parts = ((block, _OF_BLOCK), (attention, _OF_ATTENTION), (feed_forward, _OF_FEED_FORWARD))
    return (
        all({name for name, _ in part.named_children()} <= names for part, names in parts)
        and block.kv_source is None
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
