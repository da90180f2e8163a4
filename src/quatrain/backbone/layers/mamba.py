"""A selective state space instead of attention, or beside it: Mamba-2 (Dao and Gu, 2024,
"Transformers are SSMs"), as in Granite 4 H and Falcon-H1.

Source: `GraniteMoeHybridMambaLayer` and `FalconH1Mixer` of transformers, whose names it has;
`in_proj`, one matrix there, is three.
"""

import torch
from torch import nn

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layers.delta_rule import StateSpace
from quatrain.backbone.layers.feed_forward import silu
from quatrain.backbone.layers.norm import RMSNorm
from quatrain.backbone.layers.short_conv import CausalConv
from quatrain.backbone.layers.softplus import negative_softplus


class Mamba2(nn.Module):
    """Filtered x, B and C through a `StateSpace`; what it gives is gated by `in_proj_z`, normed and
    projected back.

    A token writes, into the state of each head, its x times B and its time step, and reads it by C.
    The time step dt = softplus(in_proj_dt(x) + dt_bias) also says how much of the state is left:
    exp(-exp(A_log) * dt). D is the part of x that goes past the state.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.heads, self.head_dim = config.mamba_num_heads, config.mamba_head_dim
        self.groups, self.state_size = config.mamba_n_groups, config.mamba_state_size
        inner, channels = config.mamba_dim, config.mamba_channels
        self.in_proj_z = nn.Linear(config.dim, inner, bias=config.mamba_in_bias)
        self.in_proj_xBC = nn.Linear(config.dim, channels, bias=config.mamba_in_bias)
        self.in_proj_dt = nn.Linear(config.dim, self.heads, bias=config.mamba_in_bias)
        self.conv1d = CausalConv(channels, config.mamba_conv_kernel, config.mamba_conv_bias)
        self.dt_bias = nn.Parameter(torch.zeros(self.heads), requires_grad=False)
        self.A_log = nn.Parameter(torch.zeros(self.heads), requires_grad=False)
        self.D = nn.Parameter(torch.ones(self.heads), requires_grad=False)
        one_key = self.groups == 1
        self.space = StateSpace(self.heads, self.state_size, self.head_dim, one_key=one_key)
        self.norm = _norm(inner, self.groups, config.norm_eps)
        if config.mamba_norm == "none":
            self.norm = None
        self.norm_before_gate = config.mamba_norm == "before_gate"
        self.out_proj = nn.Linear(inner, config.dim, bias=config.mamba_out_bias)

    def forward(self, x: torch.Tensor, start: int) -> torch.Tensor:
        """x [B, T, dim], `start` the position of the first of T tokens; returns [B, T, dim]."""
        texts, length, _ = x.shape
        mixed = silu(self.conv1d(self.in_proj_xBC(x), start))
        keys = self.groups * self.state_size
        values, write, read = mixed.split((self.heads * self.head_dim, keys, keys), dim=-1)
        values = values.reshape(texts, length, self.heads, self.head_dim)
        less_time = negative_softplus(self.in_proj_dt(x) + self.dt_bias)
        log_decay = torch.exp(self.A_log) * less_time
        given = self.space(
            self._for_heads(read), self._for_heads(write), values, log_decay, -less_time, start
        )
        given = given + values * self.D.unsqueeze(-1)
        given = given.reshape(texts, length, -1)
        return self.out_proj(self._gated(given, silu(self.in_proj_z(x))))

    def _gated(self, given: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        if self.norm is None:
            return given * gate
        return self.norm(given) * gate if self.norm_before_gate else self.norm(given * gate)

    def _for_heads(self, groups: torch.Tensor) -> torch.Tensor:
        """Of `groups` [B, T, groups * state_size] what each head has, [B, T, heads, state_size], or
        [B, T, 1, state_size] where all have the same."""
        texts, length, _ = groups.shape
        if self.groups == 1:
            return groups.unsqueeze(2)
        apart = groups.reshape(texts, length, self.groups, self.state_size)
        repeated = torch.cat([apart] * (self.heads // self.groups), dim=-1)
        return repeated.view(texts, length, self.heads, self.state_size)


def _norm(width: int, groups: int, eps: float) -> nn.Module:
    return RMSNorm(width, eps) if groups == 1 else GroupNorm(width, groups, eps)


class GroupNorm(nn.Module):
    """An RMS norm of each of `groups` parts of x [..., width] by itself, weight [width]."""

    def __init__(self, width: int, groups: int, eps: float) -> None:
        super().__init__()
        self.groups = groups
        self.weight = nn.Parameter(torch.ones(width), requires_grad=False)
        self.norm = RMSNorm(width // groups, eps, affine=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = x.reshape(*x.shape[:-1], self.groups, -1)
        return self.norm(parts).reshape(x.shape) * self.weight
