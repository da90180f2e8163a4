"""The gated delta rule instead of attention (Yang et al., 2024, "Gated Delta Networks"), as in
three of four layers of Qwen 3.5.

Source: `Qwen3_5GatedDeltaNet` of transformers' `modeling_qwen3_5.py`; names and parts are those of
`AttentionGatedDeltaNet` in ExecuTorch's `examples/models/llama/attention.py`.
"""

import torch
from torch import nn

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layers.delta_rule import DeltaRule
from quatrain.backbone.layers.feed_forward import silu
from quatrain.backbone.layers.norm import RMSNorm
from quatrain.backbone.layers.short_conv import CausalConv
from quatrain.backbone.layers.softplus import negative_softplus

_EPSILON = 1e-6  # beneath the squared length of a query or key


class GatedDeltaNet(nn.Module):
    """Filtered queries, keys and values through a `DeltaRule`; each head's answer normed, gated by
    `in_proj_z` and projected back.

    Each of `linear_num_key_heads` serves as many value heads that follow on each other. A token
    keeps the part exp(-exp(A_log) * softplus(in_proj_a(x) + dt_bias)) of a head's state, and writes
    with the strength sigmoid(in_proj_b(x)).
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.heads, self.key_heads = config.linear_num_value_heads, config.linear_num_key_heads
        self.key_dim, self.value_dim = config.linear_key_head_dim, config.linear_value_head_dim
        values = self.heads * self.value_dim
        self.in_proj_qkv = nn.Linear(config.dim, config.delta_channels, bias=False)
        self.in_proj_z = nn.Linear(config.dim, values, bias=False)
        self.in_proj_b = nn.Linear(config.dim, self.heads, bias=False)
        self.in_proj_a = nn.Linear(config.dim, self.heads, bias=False)
        self.conv1d = CausalConv(config.delta_channels, config.linear_conv_kernel_dim)
        self.dt_bias = nn.Parameter(torch.zeros(self.heads), requires_grad=False)
        self.A_log = nn.Parameter(torch.zeros(self.heads), requires_grad=False)
        self.q_norm = _to_length(self.key_dim, self.key_dim**-0.5)
        self.k_norm = _to_length(self.key_dim, 1.0)
        self.rule = DeltaRule(self.heads, self.key_dim, self.value_dim)
        self.norm = RMSNorm(self.value_dim, config.norm_eps)
        self.out_proj = nn.Linear(values, config.dim, bias=False)

    def forward(self, x: torch.Tensor, start: int) -> torch.Tensor:
        """x [B, T, dim], `start` the position of the first of T tokens; returns [B, T, dim]."""
        texts, length, _ = x.shape
        q, k, v = self._heads(silu(self.conv1d(self.in_proj_qkv(x), start)))
        log_decay = torch.exp(self.A_log) * negative_softplus(self.in_proj_a(x) + self.dt_bias)
        strength = torch.sigmoid(self.in_proj_b(x))
        read = self.norm(self.rule(q, k, v, log_decay, strength, start))
        gate = silu(self.in_proj_z(x)).view(read.shape)
        return self.out_proj((read * gate).reshape(texts, length, -1))

    def _heads(self, mixed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of `mixed` [B, T, channels] the queries and keys [B, T, heads, key_dim], scaled to their
        lengths, and the values [B, T, heads, value_dim]."""
        texts, length, _ = mixed.shape
        keys = self.key_heads * self.key_dim
        split = mixed.split((keys, keys, self.heads * self.value_dim), dim=-1)
        q, k = (part.reshape(texts, length, self.key_heads, self.key_dim) for part in split[:2])
        q, k = (self._for_values(part) for part in (self.q_norm(q), self.k_norm(k)))
        return q, k, split[2].reshape(texts, length, self.heads, self.value_dim)

    def _for_values(self, heads: torch.Tensor) -> torch.Tensor:
        """Each key head, repeated for each of its value heads."""
        each = self.heads // self.key_heads
        if each == 1:
            return heads
        texts, length, _, width = heads.shape
        return torch.cat([heads] * each, dim=-1).view(texts, length, self.heads, width)


def _to_length(width: int, length: float) -> RMSNorm:
    """The norm that gives heads of `width` this Euclidean length."""
    norm = RMSNorm(width, _EPSILON / width, affine=False)
    norm.weight.mul_(length * width**-0.5)
    return norm
