"""Grouped-query self-attention."""

from functools import partial

import torch
from torch import nn

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layer_config import Layer
from quatrain.backbone.layers.kv_cache import CachedAttention
from quatrain.backbone.layers.norm import RMSNorm
from quatrain.backbone.layers.rope import rotary_for
from quatrain.backbone.layers.scaling import factor_or_none


class Attention(nn.Module):
    """Queries, keys and values, rotated, attended over the KV cache, projected back.

    What a layer has beside that, its `Layer` and the config say: bias on the four projections,
    RMS norm of each query and key head before or after the rotation (Qwen 3, Llama 4) or of all
    together (OLMo 2), no rotation, queries that grow with their position, another layer's keys and
    values, a norm and a gate on what each head attended to, a norm of what all did together.
    """

    def __init__(self, config: BackboneConfig, layer: Layer) -> None:
        super().__init__()
        self.head_dim = layer.head_dim
        queries = config.n_heads * layer.head_dim
        keys = layer.n_kv_heads * layer.head_dim
        owns_keys = layer.kv_source is None
        self.wq = nn.Linear(config.dim, queries, bias=config.attention_qkv_bias)
        if owns_keys:
            self.wk = nn.Linear(config.dim, keys, bias=config.attention_qkv_bias)
            self.wv = nn.Linear(config.dim, keys, bias=config.attention_qkv_bias)
        self.wo = nn.Linear(queries, config.dim, bias=config.attention_output_bias)
        self.norm_before_rope = config.qk_norm_before_rope
        self.q_norm_fn = self.k_norm_fn = None
        if layer.qk_norm:
            self.q_norm_fn = _head_norm(config, layer, queries)
            if owns_keys:
                self.k_norm_fn = _head_norm(config, layer, keys)
        plain_norm = partial(RMSNorm, layer.head_dim, config.norm_eps, affine=False)
        self.v_norm = plain_norm() if config.use_v_norm and owns_keys else None
        self.norm_whole = config.qk_norm_whole
        self.rotary = rotary_for(config) if layer.rope != "none" else None
        self.temperature = PositionTemperature(config) if layer.temperature else None
        self.scale_query = factor_or_none(_query_factor(config, layer))
        self.attend = CachedAttention(config, layer) if owns_keys else None
        self.o_norm = plain_norm() if config.use_attn_o_norm else None
        self.og = nn.Linear(config.dim, queries, bias=False) if config.use_attn_o_gate else None
        self.sub_norm = RMSNorm(queries, config.norm_eps) if config.use_sub_norms else None

    def forward(
        self,
        x: torch.Tensor,
        angles: tuple[torch.Tensor, ...],
        start: int,
        kv_source: CachedAttention | None = None,
    ) -> torch.Tensor:
        """x [B, T, dim] (B texts of one length, where the caches have room for as many; 1 in a
        program); `angles` from `Rope`, for `rotary`; `kv_source` the attention of the layer whose
        keys and values this one reads, if it has none; returns [B, T, dim]."""
        texts, length, _ = x.shape
        q = self.wq(x).view(texts, length, -1, self.head_dim)
        if self.attend is None:
            assert kv_source is not None
            # The rotation takes a pair, so a query without a key goes with itself.
            q, _ = self._normed_and_rotated(q, q, angles)
            attended = kv_source.read(self._scaled(q, start), start)
        else:
            k = self.wk(x).view(texts, length, -1, self.head_dim)
            v = self.wv(x).view(texts, length, -1, self.head_dim)
            if self.v_norm is not None:
                v = self.v_norm(v)
            q, k = self._normed_and_rotated(q, k, angles)
            attended = self.attend(self._scaled(q, start), k, v, start)
        if self.o_norm is not None:
            attended = self.o_norm(attended)
        attended = attended.reshape(texts, length, -1)
        if self.og is not None:
            attended = torch.sigmoid(self.og(x)) * attended
        if self.sub_norm is not None:
            attended = self.sub_norm(attended)
        return self.wo(attended)

    def _normed_and_rotated(
        self, q: torch.Tensor, k: torch.Tensor, angles: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.norm_before_rope:
            q, k = self._normed(q, k)
        if self.rotary is not None:
            q, k = self.rotary(q, k, *angles)
        return (q, k) if self.norm_before_rope else self._normed(q, k)

    def _normed(self, q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._normed_by(self.q_norm_fn, q), self._normed_by(self.k_norm_fn, k)

    def _normed_by(self, norm: RMSNorm | None, heads: torch.Tensor) -> torch.Tensor:
        if norm is None:
            return heads
        return norm(heads.flatten(2)).view(heads.shape) if self.norm_whole else norm(heads)

    def _scaled(self, q: torch.Tensor, start: int) -> torch.Tensor:
        if self.scale_query is not None:
            q = self.scale_query(q)
        return q if self.temperature is None else q * self.temperature(start, q.shape[1])


class PositionTemperature(nn.Module):
    """The factor of the query at each position in layers without rotation (Llama 4).

    `1 + attn_scale * ln(1 + floor((position + 1) / floor_scale))`, the scalable softmax of
    Nakanishi (2025), "Scalable-Softmax Is Superior for Attention". Ministral 3, whose layers are
    rotated, counts from `position`.
    """

    factors: torch.Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        positions = torch.arange(config.max_seq_len, device="cpu").float()
        first = 0.0 if config.attn_temperature_with_rope else 1.0
        steps = torch.floor((positions + first) / config.floor_scale)
        factors = torch.log1p(steps) * config.attn_scale + 1.0
        self.register_buffer("factors", factors[:, None, None], persistent=False)

    def forward(self, start: int, length: int) -> torch.Tensor:
        """The factors [T, 1, 1] of positions start .. start + length - 1."""
        return self.factors.narrow(0, start, length)


def _head_norm(config: BackboneConfig, layer: Layer, channels: int) -> RMSNorm:
    """Of each head, or of all `channels` of a projection."""
    width = channels if config.qk_norm_whole else layer.head_dim
    return RMSNorm(width, config.norm_eps, config.qk_norm_affine)


def _query_factor(config: BackboneConfig, layer: Layer) -> float:
    """One number for all that scales queries, since softmax divides by sqrt(head_dim) anyhow."""
    factor = config.scale_query_by if layer.qk_norm else 1.0
    if config.attention_multiplier is not None:
        factor *= config.attention_multiplier * layer.head_dim**0.5
    return factor
