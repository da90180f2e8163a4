"""Attention over a KV cache that the backbone keeps from call to call."""

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.backbone.config import BackboneConfig


class CachedAttention(nn.Module):
    """Causal grouped-query attention of T new tokens over all tokens so far.

    Mutable buffers `k_cache` and `v_cache` [1, max_seq_len, n_kv_heads, head_dim] hold the
    keys and values of positions 0 .. start - 1 when called, 0 .. start + T - 1 afterwards.
    """

    k_cache: torch.Tensor
    v_cache: torch.Tensor

    def __init__(self, config: BackboneConfig, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        shape = (1, config.max_seq_len, config.n_kv_heads, config.head_dim)
        for name in ("k_cache", "v_cache"):
            # On the CPU even where the module is built on the meta device: never loaded.
            cache = torch.zeros(shape, dtype=dtype, device="cpu")
            self.register_buffer(name, cache, persistent=False)

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, start: int
    ) -> torch.Tensor:
        """q [1, T, n_heads, head_dim], k and v [1, T, n_kv_heads, head_dim], `start` the
        position of the first of the T tokens; returns [1, T, n_heads, head_dim]."""
        length = q.shape[1]
        end = start + length
        self.k_cache[:, start:end] = k
        self.v_cache[:, start:end] = v
        mask = None
        if length > 1:
            # Token start + i sees positions 0 .. start + i.
            mask = torch.ones(length, end, dtype=torch.bool).tril(diagonal=start)
        # To [1, heads, tokens, head_dim], the layout of torch's attention, and back.
        attended = F.scaled_dot_product_attention(
            q.transpose(1, 2),
            self.k_cache[:, :end].transpose(1, 2),
            self.v_cache[:, :end].transpose(1, 2),
            attn_mask=mask,
            enable_gqa=True,
        )
        return attended.transpose(1, 2)
