"""The gated short convolution that LFM2 (Liquid AI, 2025) has in most layers, where others attend.

Source: `Lfm2ShortConv` of transformers' `modeling_lfm2.py`; names and parts are those of
ExecuTorch's `examples/models/lfm2/short_conv.py`.
"""

import torch
from torch import nn

from quatrain.backbone.config import BackboneConfig


class ShortConv(nn.Module):
    """`out_proj(C(x) * conv(B(x) * x_proj(x)))`: x [B, T, dim] through three linears, of which one
    is filtered along the tokens, one gates before and one after."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.B_proj, self.C_proj, self.x_proj, self.out_proj = (
            nn.Linear(config.dim, config.dim, bias=False) for _ in range(4)
        )
        self.conv = CausalConv(config.dim, config.conv_L_cache)

    def forward(self, x: torch.Tensor, start: int) -> torch.Tensor:
        """x [B, T, dim], `start` the position of the first of T tokens; returns [B, T, dim]."""
        gated = self.B_proj(x) * self.x_proj(x)
        return self.out_proj(self.C_proj(x) * self.conv(gated, start))


class CausalConv(nn.Module):
    """A filter of L taps for each channel, over a token and the L - 1 before it.

    weight [dim, 1, L], the last tap a token's own; bias [dim], or none. The buffer `conv_state`
    [texts, L - 1, dim] holds the last inputs before the call's: a call continues the previous one,
    or begins a text at position 0, before which there are zeros.
    """

    conv_state: torch.Tensor

    def __init__(self, dim: int, taps: int, bias: bool = False) -> None:
        super().__init__()
        self.taps = taps
        self.weight = nn.Parameter(torch.zeros(dim, 1, taps), requires_grad=False)
        self.bias = nn.Parameter(torch.zeros(dim), requires_grad=False) if bias else None
        # On the CPU even if the module is built on the meta device: never loaded.
        state = torch.zeros(1, taps - 1, dim, device="cpu")
        self.register_buffer("conv_state", state, persistent=False)

    def forward(self, x: torch.Tensor, start: int) -> torch.Tensor:
        """x [B, T, dim] at positions `start` onwards; returns [B, T, dim]."""
        texts, length, dim = x.shape
        before = self.conv_state if start else x.new_zeros(texts, self.taps - 1, dim)
        every = torch.cat((before, x), dim=1)
        self.conv_state = every[:, length:].detach().clone()
        shifted = [every.narrow(1, shift, length) for shift in range(self.taps)]
        return shifted_sum(shifted, list(self.weight[:, 0].T), self.bias)


def shifted_sum(
    shifted: list[torch.Tensor], taps: list[torch.Tensor], bias: torch.Tensor | None
) -> torch.Tensor:
    """The inputs [B, T, dim] of each of the L taps, times the tap [dim], their sum [B, T, dim];
    `bias` [dim] or None."""
    result = shifted[0] * taps[0]
    for each, tap in zip(shifted[1:], taps[1:], strict=True):
        result = result + each * tap
    return result if bias is None else result + bias
