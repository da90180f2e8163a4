"""Multi-head latent attention (DeepSeek-AI, 2024, "DeepSeek-V2", section 2.1).

The keys and values of all heads are linear in one latent vector of a token, which is what the cache
holds, beside one rotated key for all heads. The matrices that would make a head's keys and values
of it are applied to the head's query, and to what it attended to: the same products, in another
order (the paper's appendix C), so that attention is over one KV head.
"""

import torch
from torch import nn

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layer_config import Layer
from quatrain.backbone.layers.kv_cache import CachedAttention
from quatrain.backbone.layers.norm import RMSNorm
from quatrain.backbone.layers.rope import rotary_for
from quatrain.backbone.layers.scaling import factor_or_none

# Of the norms of latent vectors, whatever the others have: `MiniCPM3Attention`, `YoutuAttention`
# and DeepSeek's own code.
_EPSILON = 1e-6


class LatentAttention(nn.Module):
    """Queries, perhaps through a latent vector of their own, that attend to latent vectors.

    Of H heads, each has `qk_nope_head_dim` channels of keys without rotation and
    `qk_rope_head_dim` with. wq [H * head_dim, dim], or wq_a [q_lora_rank, dim] and wq_b [H *
    head_dim, q_lora_rank]; wkv_a [kv_lora_rank + qk_rope_head_dim, dim]; wk_b [H,
    qk_nope_head_dim, kv_lora_rank] and wv_b [H, kv_lora_rank, v_head_dim], not quantized; wo [dim,
    H * v_head_dim].
    """

    def __init__(self, config: BackboneConfig, layer: Layer) -> None:
        super().__init__()
        self.latent_dim, self.nope_dim = config.kv_lora_rank, config.qk_nope_head_dim
        heads, queries = config.n_heads, config.n_heads * config.head_dim
        self.head_dim = config.head_dim
        self.wq = self.wq_a = self.wq_b = self.q_norm = None
        if config.q_lora_rank:
            self.wq_a = nn.Linear(config.dim, config.q_lora_rank, bias=False)
            self.q_norm = RMSNorm(config.q_lora_rank, _EPSILON)
            self.wq_b = nn.Linear(config.q_lora_rank, queries, bias=False)
        else:
            self.wq = nn.Linear(config.dim, queries, bias=False)
        self.wkv_a = nn.Linear(config.dim, layer.head_dim, bias=False)
        self.kv_norm = RMSNorm(config.kv_lora_rank, _EPSILON)
        self.rotary = rotary_for(config)
        self.wk_b = HeadMatrices(heads, config.qk_nope_head_dim, config.kv_lora_rank)
        # Attention divides by the root of the width that it sees.
        scale = config.attention_multiplier or config.head_dim**-0.5
        self.scale_query = factor_or_none(scale * layer.head_dim**0.5)
        self.attend = CachedAttention(config, layer)
        self.wv_b = HeadMatrices(heads, config.kv_lora_rank, config.v_head_dim)
        self.wo = nn.Linear(heads * config.v_head_dim, config.dim, bias=False)

    def forward(
        self, x: torch.Tensor, angles: tuple[torch.Tensor, ...], start: int
    ) -> torch.Tensor:
        """x [B, T, dim], `angles` and `start` as for `Attention`; returns [B, T, dim]."""
        texts, length, _ = x.shape
        latent, key = self._split(self.wkv_a(x).unsqueeze(2), self.latent_dim)
        q = self._queries(x).view(texts, length, -1, self.head_dim)
        still, turning = self._split(q, self.nope_dim)
        turning, key = self.rotary(turning, key, *angles)
        q = torch.cat((self.wk_b(still), turning), dim=-1)
        q = q if self.scale_query is None else self.scale_query(q)
        seen = torch.cat((self.kv_norm(latent), key), dim=-1)
        attended, _ = self._split(self.attend(q, seen, seen, start), self.latent_dim)
        return self.wo(self.wv_b(attended).reshape(texts, length, -1))

    def _queries(self, x: torch.Tensor) -> torch.Tensor:
        if self.wq is not None:
            return self.wq(x)
        assert self.wq_a is not None and self.wq_b is not None and self.q_norm is not None
        return self.wq_b(self.q_norm(self.wq_a(x)))

    @staticmethod
    def _split(heads: torch.Tensor, first: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The first channels of `heads` [B, T, H, D], and the others."""
        return heads.narrow(-1, 0, first), heads.narrow(-1, first, heads.shape[-1] - first)


class HeadMatrices(nn.Module):
    """A matrix for each head: weight [H, K, N], from x [B, T, H, K] to [B, T, H, N]."""

    def __init__(self, heads: int, inputs: int, outputs: int) -> None:
        super().__init__()
        weight = torch.empty(heads, inputs, outputs)
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        texts, length, heads, inputs = x.shape
        rows = x.reshape(texts * length, heads, inputs).transpose(0, 1)
        made = torch.bmm(rows, self.weight).transpose(0, 1)
        return made.reshape(texts, length, heads, -1)
