"""Modules that replace parts of the backbone and trace to one Vulkan operator each."""

import torch
from torch import nn

from quatrain.backbone.layers.delta_rule import DeltaRule
from quatrain.backbone.layers.kv_cache import CachedAttention
from quatrain.backbone.layers.norm import RMSNorm
from quatrain.backbone.layers.residual import FixedResidual, GatedResidual
from quatrain.backbone.layers.rope import HalfSplitRotary, InterleavedRotary, Rope
from quatrain.backbone.layers.short_conv import CausalConv
from quatrain.backbone.model import Backbone
from quatrain.export.operators.attention import OneCacheSdpa, OwnCacheSdpa, SdpaWithKvCache
from quatrain.export.operators.short_conv import KeptConv
from quatrain.export.vulkan.chunked_delta_rule import Chunk, ChunkedDeltaRule
from quatrain.export.vulkan.cpu_table import CpuTable
from quatrain.export.vulkan.masked_attention import (
    MaskedSdpa,
    MaskKey,
    PositionMask,
    mask_key,
    masks_for,
)
from quatrain.linear.embedding import QuantizedGroupEmbedding


class VulkanRMSNorm(nn.Module):
    """`RMSNorm` as `et_vk::rms_norm`."""

    weight: torch.Tensor

    def __init__(self, norm: RMSNorm) -> None:
        super().__init__()
        # A buffer whether it was a parameter or not: the exporter knows tensors by their names.
        self.register_buffer("weight", norm.weight.detach())
        self.eps = norm.eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.et_vk.rms_norm.default(x, self.weight, self.eps)


class VulkanInterleavedRotary(nn.Module):
    """`InterleavedRotary` as `et_vk::apply_rotary_emb`."""

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ops.et_vk.apply_rotary_emb.default(q, k, cos, sin)


class VulkanHalfSplitRope(nn.Module):
    """`Rope` for `et_vk::apply_rotary_emb_hf`, which takes whole tables and the position."""

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, rope: Rope) -> None:
        super().__init__()
        self.register_buffer("cos", rope.cos)
        self.register_buffer("sin", rope.sin)

    def forward(self, start: int, length: int) -> tuple[torch.Tensor, torch.Tensor, int]:
        return self.cos, self.sin, start


class VulkanHalfSplitRotary(nn.Module):
    """`HalfSplitRotary` as `et_vk::apply_rotary_emb_hf`."""

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, start: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ops.et_vk.apply_rotary_emb_hf.default(q, k, cos, sin, start)


def to_vulkan_operators(backbone: Backbone) -> None:
    """Replace, in place, the parts of a backbone for which Vulkan has an operator, except its
    quantized layers (see `packed_layers`)."""
    masks, context = _masks(backbone), backbone.config.max_seq_len
    rule = next((part for part in backbone.modules() if isinstance(part, DeltaRule)), None)
    chunk = None if rule is None else Chunk(rule)
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            replacement = _vulkan_form(child, masks, chunk, context)
            if replacement is not None:
                setattr(parent, name, replacement)
    if backbone.per_layer is not None:
        table = backbone.per_layer.embeddings
        assert isinstance(table, QuantizedGroupEmbedding)
        backbone.per_layer.embeddings = CpuTable(table)


def _masks(backbone: Backbone) -> dict[MaskKey, PositionMask]:
    parts = [part for part in backbone.modules() if isinstance(part, CachedAttention)]
    return masks_for(parts, backbone.config.n_heads)


def _vulkan_form(
    part: nn.Module, masks: dict[MaskKey, PositionMask], chunk: Chunk | None, context: int
) -> nn.Module | None:
    if isinstance(part, RMSNorm):
        return VulkanRMSNorm(part)
    if isinstance(part, GatedResidual):
        return FixedResidual(part)
    if isinstance(part, CachedAttention):
        if part.attention_window is not None or part.changes_scores:
            return MaskedSdpa(part, masks[mask_key(part)])
        if part.values_are_keys:
            return OneCacheSdpa(part)
        return OwnCacheSdpa(part) if part.shares_kv else SdpaWithKvCache(part)
    if isinstance(part, DeltaRule):
        assert chunk is not None
        return ChunkedDeltaRule(part, chunk, context)
    if isinstance(part, CausalConv):
        return KeptConv(part, context, tuple(part.conv_state.shape))
    if isinstance(part, InterleavedRotary):
        return VulkanInterleavedRotary()
    if isinstance(part, HalfSplitRotary):
        return VulkanHalfSplitRotary()
    if isinstance(part, Rope) and part.half_split:
        return VulkanHalfSplitRope(part)
    return None
