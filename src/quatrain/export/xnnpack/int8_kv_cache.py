"""Attention over a KV cache of int8 as ExecuTorch's CPU operators."""

import torch
from torch import nn

from quatrain.backbone.layers.kv_cache import CachedAttention
from quatrain.linear.affine import INT8_MAX, INT8_MIN

PARTS = ("cache", "cache_scales", "cache_zero_points")


class Int8KvCacheSdpa(nn.Module):
    """`CachedAttention` that rounds to int8, as `llama::custom_quantized_sdpa`.

    Mutable buffers: `k_cache` and `v_cache` int8 [1, context, n_kv_heads, head_dim], and of each
    token and head in them `k_cache_scales` float32 and `k_cache_zero_points` int8
    [1, context, n_kv_heads, 1], likewise of v. The operators are registered by
    `export.lowering.tracing`.
    """

    def __init__(self, attend: CachedAttention) -> None:
        super().__init__()
        shape = attend.k_cache.shape
        for name in ("k", "v"):
            for part in PARTS:
                last = shape[-1] if part == "cache" else 1
                dtype = torch.float32 if part == "cache_scales" else torch.int8
                zeros = torch.zeros((*shape[:-1], last), dtype=dtype, device="cpu")
                self.register_buffer(f"{name}_{part}", zeros)

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: int
    ) -> torch.Tensor:
        """As of `CachedAttention`."""
        for name, heads in (("k", k), ("v", v)):
            for part, new in zip(PARTS, quantized_per_token(heads), strict=True):
                cache = self.get_buffer(f"{name}_{part}")
                torch.ops.llama.update_cache.default(new, cache, start)
        q, scales, zero_points = quantized_per_token(q)
        return torch.ops.llama.custom_quantized_sdpa.default(
            q, self.k_cache, self.v_cache, start, None, 0.0, True, None,
            zero_points, scales,
            self.k_cache_zero_points, self.k_cache_scales,
            self.v_cache_zero_points, self.v_cache_scales,
        )  # fmt: skip


def quantized_per_token(heads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """`heads` [1, T, H, D] as (int8, float32 scales and int8 zero points [1, T, H, 1])."""
    operators = torch.ops.quantized_decomposed
    choose = operators.choose_qparams_per_token_asymmetric.default
    scales, zero_points = choose(heads, torch.int8)
    quantized = operators.quantize_per_token.default(
        heads, scales, zero_points, INT8_MIN, INT8_MAX, torch.int8
    )
    return quantized, scales.to(torch.float32), zero_points.to(torch.int8)
