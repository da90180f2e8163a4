"""What lies between a layer's linears, as parts that XNNPACK computes.

A layer's linears are delegates of their own. What is computed between them is alike in every layer,
and one delegate for all (see `quatrain.program.file.shared_delegates`).
"""

from typing import Any, cast

import torch
from torch import nn

from quatrain.backbone.block import Block
from quatrain.backbone.layers.attention import Attention
from quatrain.backbone.layers.feed_forward import FeedForward
from quatrain.backbone.layers.latent_attention import LatentAttention
from quatrain.backbone.layers.norm import RMSNorm
from quatrain.backbone.layers.rope import HalfSplitRotary
from quatrain.backbone.model import Backbone
from quatrain.export.xnnpack.activations import PARTS
from quatrain.export.xnnpack.joined_linears import (
    GATE_AND_UP,
    QUERIES_KEYS_VALUES,
    are_alike,
    cut,
)
from quatrain.export.xnnpack.small_linears import LinearRMSNorm, LinearRotary, WideRope
from quatrain.linear import Int8DynActInt4WeightLinear, Int8DynActInt8WeightLinear

# The modules that have a place in the parts.
_OF_ATTENTION = (
    "wq", "wk", "wv", "wo", "q_norm_fn", "k_norm_fn", "rotary", "scale_query", "attend"
)  # fmt: skip
_OF_FEED_FORWARD = {"w1", "w2", "w3"}
_STREAM_NORMS = ("attention_norm", "post_attention_norm", "ffn_norm", "post_ffn_norm")
_LINEARS = (Int8DynActInt4WeightLinear, Int8DynActInt8WeightLinear, nn.Linear)


class Heads(nn.Module):
    """What attention takes of the heads [1, T, heads, head_dim] of queries, keys and values: these
    three apart, queries and keys rotated by cos and sin [1, T, 1, head_dim]."""

    q_norm_fn: Any
    k_norm_fn: Any
    rotary: Any
    scale_query: Any

    def __init__(self, attention: "PartedAttention") -> None:
        super().__init__()
        self.head_dim, self.norm_before_rope = attention.head_dim, attention.norm_before_rope
        self.q_norm_fn, self.k_norm_fn = attention.q_norm_fn, attention.k_norm_fn
        self.rotary, self.scale_query = attention.rotary, attention.scale_query
        linears = [getattr(attention, name) for name in QUERIES_KEYS_VALUES]
        self.heads = tuple(len(each.weight) // self.head_dim for each in linears)

    def forward(
        self, heads: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        queries, keys, values = self.heads
        both, v = cut(heads, 2, (queries + keys, values))
        if self.rotary is not None and not self._normed_before():
            both = self.rotary(both, cos, sin)
        q, k = cut(both, 2, (queries, keys))
        if self.q_norm_fn is not None:
            q, k = self.q_norm_fn(q), self.k_norm_fn(k)
        if self.rotary is not None and self._normed_before():
            q, k = self.rotary(q, cos, sin), self.rotary(k, cos, sin)
        return (q if self.scale_query is None else self.scale_query(q)), k, v

    def _normed_before(self) -> bool:
        return self.q_norm_fn is not None and self.norm_before_rope


class NormedSum(nn.Module):
    """x plus what attention gave, [1, T, dim] both, and its norm."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.ffn_norm = norm

    def forward(self, x: torch.Tensor, added: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = x + added
        return x, self.ffn_norm(x)


class Sum(nn.Module):
    """x plus what a branch gave, [1, T, dim] both."""

    def forward(self, x: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
        return x + added


class Gated(nn.Module):
    """What a feed-forward gives its last linear of gate and up, one after another, or of what it
    has instead."""

    def __init__(self, feed_forward: "PartedFeedForward") -> None:
        super().__init__()
        names = GATE_AND_UP if feed_forward.w3 is not None else GATE_AND_UP[:1]
        self.rows = tuple(len(getattr(feed_forward, name).weight) for name in names)
        self.activate = feed_forward.activate

    def forward(self, projected: torch.Tensor) -> torch.Tensor:
        if len(self.rows) == 1:
            return self.activate(projected)
        gate, up = cut(projected, 2, self.rows)
        return self.activate(gate) * up


class PartedAttention(nn.Module):
    """An `Attention` with `Heads` between its linears, and its tensors' names.

    This and the next two compute nothing: `delegated_parts` puts delegates in their parts' place.
    """

    wq: Any
    wk: Any
    wv: Any
    wo: Any
    q_norm_fn: Any
    k_norm_fn: Any
    scale_query: Any

    def __init__(self, attention: Attention, partial_rotary_factor: float) -> None:
        super().__init__()
        self.head_dim, self.norm_before_rope = attention.head_dim, attention.norm_before_rope
        for name in _OF_ATTENTION:
            setattr(self, name, getattr(attention, name))
        for name in ("q_norm_fn", "k_norm_fn"):
            norm = getattr(attention, name)
            setattr(self, name, None if norm is None else LinearRMSNorm(norm))
        rotary = attention.rotary
        if rotary is not None:
            half_split, rotated = isinstance(rotary, HalfSplitRotary), partial_rotary_factor
            self.rotary = LinearRotary(self.head_dim, int(self.head_dim * rotated), half_split)


class PartedFeedForward(nn.Module):
    """A `FeedForward` with `Gated` between its linears, and its tensors' names."""

    def __init__(self, feed_forward: FeedForward) -> None:
        super().__init__()
        self.w1, self.w2, self.w3 = feed_forward.w1, feed_forward.w2, feed_forward.w3
        self.activate = PARTS[cast(Any, feed_forward.activate)]()


class PartedBlock(nn.Module):
    """A Llama's `Block`, with `NormedSum` and `Sum` around two parts as above."""

    ffn_norm: nn.Module

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.rope, self.kv_source = block.rope, block.kv_source
        self.attention_norm, self.attention = block.attention_norm, block.attention
        self.ffn_norm = cast(nn.Module, block.ffn_norm)
        self.feed_forward = block.feed_forward


def part_layers(backbone: Backbone) -> None:
    """Replace, in place, what has a part above: feed-forwards, norms and sums of the residual
    stream, all attentions if each of them has one, and a layer if nothing else is in it."""
    for block in cast(Any, backbone.layers):
        if block.feed_forward is not None and _is_parted_feed_forward(block.feed_forward):
            block.feed_forward = PartedFeedForward(block.feed_forward)
        for name in _STREAM_NORMS:
            _to_linear_norm(block, name)
        block.add_attn = block.add_attn or Sum()
        if block.feed_forward is not None:
            block.add_ffn = block.add_ffn or Sum()
    _to_linear_norm(backbone, "norm")
    _part_attentions(backbone)
    for index, block in enumerate(backbone.layers):
        if _is_like_llama(block):
            backbone.layers[index] = PartedBlock(cast(Block, block))


def _to_linear_norm(parent: nn.Module, name: str) -> None:
    norm = getattr(parent, name)
    if isinstance(norm, RMSNorm):
        setattr(parent, name, LinearRMSNorm(norm))


def _part_attentions(backbone: Backbone) -> None:
    """All of them or none: they have their angles in common."""
    blocks = [block for block in cast(Any, backbone.layers) if _has_angles(block)]
    if not blocks or not all(_is_parted_attention(block) for block in blocks):
        return
    config = backbone.config
    for block in blocks:
        block.attention = PartedAttention(block.attention, config.partial_rotary_factor)
    for name in ("rope", "local_rope"):
        rope = getattr(backbone, name)
        if rope is not None:
            setattr(backbone, name, WideRope(rope, config.head_dim))


def _has_angles(block: Block) -> bool:
    return isinstance(block.attention, Attention | LatentAttention)


def _is_parted_attention(block: Block) -> bool:
    attention = block.attention
    return (
        isinstance(attention, Attention)
        and _children(attention) <= set(_OF_ATTENTION)
        and attention.attend is not None
        and not attention.norm_whole
        and all(type(one) in _LINEARS for one in (attention.wq, attention.wk, attention.wv))
        and are_alike([attention.wq, attention.wk, attention.wv])
    )


def _is_parted_feed_forward(feed_forward: nn.Module) -> bool:
    if not isinstance(feed_forward, FeedForward) or _children(feed_forward) - _OF_FEED_FORWARD:
        return False
    linears = [one for one in (feed_forward.w1, feed_forward.w3) if one is not None]
    known = feed_forward.activate in PARTS and all(type(one) in _LINEARS for one in linears)
    return known and are_alike(linears)


def _is_like_llama(block: nn.Module) -> bool:
    """Whether `block` has both parts and no more than these, two norms and two sums."""
    kinds = {
        "attention_norm": LinearRMSNorm, "attention": PartedAttention, "ffn_norm": LinearRMSNorm,
        "feed_forward": PartedFeedForward, "add_attn": Sum, "add_ffn": Sum,
    }  # fmt: skip
    found = {name: type(child) for name, child in block.named_children()}
    return found == kinds and not cast(Block, block).parallel


def _children(part: nn.Module) -> set[str]:
    return {name for name, _ in part.named_children()}
