"""Backbone parts that trace to one operator each, where a backend has that operator.

ExecuTorch fuses its own traced patterns into these; calling them directly gives the same
graph and leaves nothing to a pattern that might not match. The operators are registered by
`export.lowering`, which alone calls these parts: to know their tensors needs no compiler.
"""

import torch
from torch import nn

from quatrain.backbone.kv_cache import CachedAttention, capped_attention, visible
from quatrain.backbone.moe import skip_experts
from quatrain.backbone.norm import RMSNorm
from quatrain.backbone.residual import FixedResidual, GatedResidual
from quatrain.backbone.rope import HalfSplitRotary, InterleavedRotary, Rope
from quatrain.errors import InputError
from quatrain.linear.adapted import to_fast_hadamard


class SdpaWithKvCache(nn.Module):
    """`CachedAttention` as `llama::sdpa_with_kv_cache`; holds the same two caches."""

    def __init__(self, attend: CachedAttention) -> None:
        super().__init__()
        self.register_buffer("k_cache", attend.k_cache)
        self.register_buffer("v_cache", attend.v_cache)

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: int
    ) -> torch.Tensor:
        # 1 stands for seq_len, which the operator reads off the query instead.
        return torch.ops.llama.sdpa_with_kv_cache.default(
            q, k, v, self.k_cache, self.v_cache, start, 1, None, 0.0, True, None
        )


class OwnCacheSdpa(nn.Module):
    """`CachedAttention` whose caches are tensors of their own, which `llama::update_cache` writes.

    For caches that other layers read too (the operator that does both keeps its caches to itself
    on Vulkan), and for what that operator does not compute: a window, a chunk, a soft cap.
    """

    k_cache: torch.Tensor
    v_cache: torch.Tensor

    def __init__(self, attend: CachedAttention) -> None:
        super().__init__()
        self.register_buffer("k_cache", attend.k_cache)
        self.register_buffer("v_cache", attend.v_cache)
        self.attention_window, self.soft_cap = attend.attention_window, attend.soft_cap

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: int
    ) -> torch.Tensor:
        torch.ops.llama.update_cache.default(k, self.k_cache, start)
        torch.ops.llama.update_cache.default(v, self.v_cache, start)
        return self.read(q, start)

    def read(self, q: torch.Tensor, start: int) -> torch.Tensor:
        """Attention over what the caches hold already, for a layer without keys of its own."""
        if self.attention_window is None and self.soft_cap is None:
            return torch.ops.llama.custom_sdpa.default(
                q, self.k_cache, self.v_cache, start, None, 0.0, True, None
            )
        length = q.shape[1]
        if self.soft_cap is not None:
            end = start + length
            mask = visible(start, length, end, self.attention_window)
            keys, values = self.k_cache.narrow(1, 0, end), self.v_cache.narrow(1, 0, end)
            return capped_attention(q, keys, values, mask, self.soft_cap)
        # With a mask the operator goes over the whole cache.
        mask = visible(start, length, self.k_cache.shape[1], self.attention_window)
        added = torch.where(mask, 0.0, -torch.inf)
        return torch.ops.llama.custom_sdpa.default(
            q, self.k_cache, self.v_cache, start, added, 0.0, False, None
        )


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


def to_vulkan_operators(backbone: nn.Module) -> None:
    """Replace, in place, the parts of a backbone that Vulkan has an operator for, but for its
    quantized layers (see `export.packed`)."""
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            replacement = _vulkan_form(child)
            if replacement is not None:
                setattr(parent, name, replacement)


def _vulkan_form(part: nn.Module) -> nn.Module | None:
    if isinstance(part, RMSNorm):
        return VulkanRMSNorm(part)
    if isinstance(part, GatedResidual):
        return FixedResidual(part)
    if isinstance(part, CachedAttention):
        return _vulkan_attention(part)
    if isinstance(part, InterleavedRotary):
        return VulkanInterleavedRotary()
    if isinstance(part, HalfSplitRotary):
        return VulkanHalfSplitRotary()
    if isinstance(part, Rope) and part.half_split:
        return VulkanHalfSplitRope(part)
    return None


def _vulkan_attention(attend: CachedAttention) -> nn.Module:
    """Raises `InputError` for attention that ExecuTorch's Vulkan delegate does not compute."""
    if attend.soft_cap is not None:
        raise InputError(
            "attn_logit_softcapping: attention in ExecuTorch's Vulkan delegate has no soft cap; "
            "use --backend xnnpack"
        )
    if attend.attention_window is not None:
        kind, size = attend.attention_window
        raise InputError(
            f"layers attend to a {kind} of {size} tokens, and attention in ExecuTorch's Vulkan "
            f"delegate takes no mask. A context of up to {size} needs none: --max-seq-len {size}; "
            "or use --backend xnnpack"
        )
    return OwnCacheSdpa(attend) if attend.shares_kv else SdpaWithKvCache(attend)


def _cpu_attention(attend: CachedAttention) -> nn.Module:
    plain = attend.attention_window is None and attend.soft_cap is None and not attend.shares_kv
    return SdpaWithKvCache(attend) if plain else OwnCacheSdpa(attend)


def to_cpu_operators(backbone: nn.Module) -> None:
    """Replace, in place, the parts that ExecuTorch's CPU runtime has one kernel for, but for
    quantized layers (see `export.xnnpack_linears` and `export.cpu_embedding`).

    SpinQuant's rotations become one operator, and experts that no token picks are skipped.
    """
    to_fast_hadamard(backbone)
    skip_experts(backbone)
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, CachedAttention):
                setattr(parent, name, _cpu_attention(child))
            elif isinstance(child, GatedResidual):
                setattr(parent, name, FixedResidual(child))
