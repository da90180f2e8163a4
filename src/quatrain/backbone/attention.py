"""Grouped-query self-attention."""

import torch
from torch import nn

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.kv_cache import CachedAttention
from quatrain.backbone.norm import RMSNorm
from quatrain.backbone.rope import rotary_for


class Attention(nn.Module):
    """Queries, keys and values, rotated, attended over the KV cache, projected back.

    Optional bias on the three projections, and optional RMS norm of each query and key head
    before or after the rotation (Qwen 2 and 3).
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        queries = config.n_heads * config.head_dim
        keys = config.n_kv_heads * config.head_dim
        self.wq = nn.Linear(config.dim, queries, bias=config.attention_qkv_bias)
        self.wk = nn.Linear(config.dim, keys, bias=config.attention_qkv_bias)
        self.wv = nn.Linear(config.dim, keys, bias=config.attention_qkv_bias)
        self.wo = nn.Linear(queries, config.dim, bias=False)
        self.use_qk_norm = config.use_qk_norm
        self.norm_before_rope = config.qk_norm_before_rope
        if config.use_qk_norm:
            self.q_norm_fn = RMSNorm(config.head_dim, config.norm_eps)
            self.k_norm_fn = RMSNorm(config.head_dim, config.norm_eps)
        self.rotary = rotary_for(config)
        self.attend = CachedAttention(config)

    def forward(
        self, x: torch.Tensor, angles: tuple[torch.Tensor, ...], start: int
    ) -> torch.Tensor:
        """x [1, T, dim]; `angles` from `Rope`, for `rotary`; returns [1, T, dim]."""
        _, length, _ = x.shape
        q = self.wq(x).view(1, length, -1, self.head_dim)
        k = self.wk(x).view(1, length, -1, self.head_dim)
        v = self.wv(x).view(1, length, -1, self.head_dim)
        if self.use_qk_norm and self.norm_before_rope:
            q, k = self.q_norm_fn(q), self.k_norm_fn(k)
        q, k = self.rotary(q, k, *angles)
        if self.use_qk_norm and not self.norm_before_rope:
            q, k = self.q_norm_fn(q), self.k_norm_fn(k)
        attended = self.attend(q, k, v, start)
        return self.wo(attended.reshape(1, length, -1))
