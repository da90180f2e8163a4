"""Attention over a KV cache as operators of both backends.

ExecuTorch fuses its own traced patterns into these; calling them directly gives the same graph and
does not depend on patterns that might not match. The operators are registered by
`export.lowering.tracing`; only tracing calls these modules, so their tensors can be listed without
a compiler.
"""

import torch
from torch import nn

from quatrain.backbone.layers.kv_cache import CachedAttention, attention_by_parts, visible


class SdpaWithKvCache(nn.Module):
    """`CachedAttention` as `llama::sdpa_with_kv_cache`; holds the same two caches."""

    def __init__(self, attend: CachedAttention) -> None:
        super().__init__()
        self.register_buffer("k_cache", attend.k_cache)
        self.register_buffer("v_cache", attend.v_cache)

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: int
    ) -> torch.Tensor:
        # 1 is a placeholder for seq_len, which the operator takes from the query.
        return torch.ops.llama.sdpa_with_kv_cache.default(
            q, k, v, self.k_cache, self.v_cache, start, 1, None, 0.0, True, None
        )


class OneCacheSdpa(nn.Module):
    """`CachedAttention` whose values are its keys, of one cache: `llama::update_cache`, and
    `llama::custom_sdpa` over it twice."""

    k_cache: torch.Tensor

    def __init__(self, attend: CachedAttention) -> None:
        super().__init__()
        self.register_buffer("k_cache", attend.k_cache)

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: int
    ) -> torch.Tensor:
        torch.ops.llama.update_cache.default(k, self.k_cache, start)
        return torch.ops.llama.custom_sdpa.default(
            q, self.k_cache, self.k_cache, start, None, 0.0, True, None
        )


class OwnCacheSdpa(nn.Module):
    """`CachedAttention` whose caches are tensors of their own, which `llama::update_cache` writes.

    For caches that other layers read too (the operator that does both keeps its caches to itself
    on Vulkan), and for what that operator does not compute: a window, a chunk, a soft cap, sinks.
    """

    k_cache: torch.Tensor
    v_cache: torch.Tensor
    sinks: torch.Tensor | None

    def __init__(self, attend: CachedAttention) -> None:
        super().__init__()
        self.register_buffer("k_cache", attend.k_cache)
        self.register_buffer("v_cache", attend.v_cache)
        self.attention_window, self.soft_cap = attend.attention_window, attend.soft_cap
        self.changes_scores = attend.changes_scores
        self.register_buffer("sinks", attend.sinks_by_key_head())
        self.attention_sinks = attend.attention_sinks

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: int
    ) -> torch.Tensor:
        torch.ops.llama.update_cache.default(k, self.k_cache, start)
        torch.ops.llama.update_cache.default(v, self.v_cache, start)
        return self.read(q, start)

    def read(self, q: torch.Tensor, start: int) -> torch.Tensor:
        """Attention over what the caches hold already, for a layer without keys of its own."""
        if self.attention_window is None and not self.changes_scores:
            return torch.ops.llama.custom_sdpa.default(
                q, self.k_cache, self.v_cache, start, None, 0.0, True, None
            )
        length = q.shape[1]
        if self.changes_scores:
            end = start + length
            mask = visible(start, length, end, self.attention_window, self.attention_sinks)
            keys, values = self.k_cache.narrow(1, 0, end), self.v_cache.narrow(1, 0, end)
            return attention_by_parts(q, keys, values, mask, self.soft_cap, self.sinks)
        # With a mask the operator goes over the whole cache.
        every = self.k_cache.shape[1]
        mask = visible(start, length, every, self.attention_window, self.attention_sinks)
        added = torch.where(mask, 0.0, -torch.inf)
        return torch.ops.llama.custom_sdpa.default(
            q, self.k_cache, self.v_cache, start, added, 0.0, False, None
        )
