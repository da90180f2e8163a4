"""Rotary position embedding (Su et al., 2021) in Meta's and in Hugging Face's layout."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.backbone.config import BackboneConfig


class Rope(nn.Module):
    """The cosines and sines of every position of the context, float32.

    Each table is [max_seq_len, head_dim / 2] for the interleaved layout, where planes that are not
    rotated have an angle of 0; for the half-split layout the same columns are repeated,
    [max_seq_len, rotated]; `rotated` is head_dim times `partial_rotary_factor`. `local`: the tables
    of sliding-window layers. In the other layers (Gemma 4), planes after the first
    `global_rotary_planes` are not rotated.
    """

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, config: BackboneConfig, local: bool = False) -> None:
        super().__init__()
        self.half_split = config.use_hf_rope
        theta = config.rope_theta
        if local and config.local_rope_theta:
            theta = config.local_rope_theta
        width = config.head_dim if local else config.global_head_dim or config.rotary_dim
        frequencies = _frequencies(config, theta, width)
        if not local:
            frequencies = _scaled(frequencies, config)
            turning = int(config.global_rotary_planes * width // 2)
            frequencies[turning:] = 0.0
        angles = torch.outer(torch.arange(config.max_seq_len, device="cpu").float(), frequencies)
        if config.use_hf_rope:
            angles = torch.cat((angles, angles), dim=-1)
        factor = 1.0 if local else config.rope_scaling_attention_factor
        for name, table in (("cos", angles.cos()), ("sin", angles.sin())):
            table = table if factor == 1.0 else table * factor
            if not config.use_hf_rope:
                rest = width // 2 - table.shape[1]
                table = F.pad(table, (0, rest), value=1.0 if name == "cos" else 0.0)
            self.register_buffer(name, table, persistent=False)

    def forward(self, start: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows of positions start .. start + length - 1 of both tables."""
        return self.cos.narrow(0, start, length), self.sin.narrow(0, start, length)


class InterleavedRotary(nn.Module):
    """Rotates neighbouring pairs (0, 1), (2, 3), ... of each head: Meta's layout.

    q [B, T, n_heads, head_dim], k [B, T, n_kv_heads, head_dim], cos and sin [T, head_dim / 2].
    """

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return _rotate_pairs(q, cos, sin), _rotate_pairs(k, cos, sin)


class HalfSplitRotary(nn.Module):
    """Rotates element i of a head with element i + rotated / 2: Hugging Face's layout.

    q [B, T, n_heads, head_dim], k [B, T, n_kv_heads, head_dim], cos and sin [T, rotated]. The
    channels of a head from `rotated` on are not changed.
    """

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return _rotate_halves(q, cos, sin), _rotate_halves(k, cos, sin)


def rotary_for(config: BackboneConfig) -> nn.Module:
    """What rotates queries and keys: dimensions that lie half a head apart, as in Hugging Face's
    models, or pairs of neighbours, as in Meta's."""
    return HalfSplitRotary() if config.use_hf_rope else InterleavedRotary()


def _rotate_pairs(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    # x as [B, T, heads, head_dim / 2, 2]; the tables broadcast over heads.
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)


def _rotate_halves(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    rotated = cos.shape[-1]
    turning = wide[..., :rotated] if rotated < x.shape[-1] else wide
    first, second = turning.chunk(2, dim=-1)
    turned = turning * cos.unsqueeze(1) + torch.cat((-second, first), dim=-1) * sin.unsqueeze(1)
    if rotated < x.shape[-1]:
        turned = torch.cat((turned, wide[..., rotated:]), dim=-1)
    return turned.to(x.dtype)


def _frequencies(config: BackboneConfig, theta: float, width: int) -> torch.Tensor:
    """Radians per position for each of the rotated / 2 planes of heads of `width`, float32."""
    rotated = int(width * config.partial_rotary_factor)
    exponents = torch.arange(0, rotated, 2, device="cpu").float() / rotated
    return 1.0 / theta**exponents


def _scaled(frequencies: torch.Tensor, config: BackboneConfig) -> torch.Tensor:
    """`frequencies` with the config's scaling for long contexts, if any."""
    if config.use_scaled_rope:
        return _llama3_scaled(frequencies, config)
    if config.longrope is not None:
        long = config.longrope == "long"
        divisors = config.rope_scaling_long_factor if long else config.rope_scaling_short_factor
        return frequencies / torch.tensor(divisors, device="cpu")
    return frequencies / config.rope_linear_factor


def _llama3_scaled(frequencies: torch.Tensor, config: BackboneConfig) -> torch.Tensor:
    """Llama 3.1's scaling: planes whose wavelength exceeds the original context rotate slower by
    `rope_scale_factor`, short wavelengths are not changed, and those between are interpolated."""
    context = config.original_max_position_embeddings
    wavelengths = 2 * math.pi / frequencies
    smooth = (context / wavelengths - config.low_freq_factor) / (
        config.high_freq_factor - config.low_freq_factor
    )
    slowed = frequencies / config.rope_scale_factor
    between = (1 - smooth) * slowed + smooth * frequencies
    scaled = torch.where(wavelengths > context / config.low_freq_factor, slowed, between)
    return torch.where(wavelengths < context / config.high_freq_factor, frequencies, scaled)
