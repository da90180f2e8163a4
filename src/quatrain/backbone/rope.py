"""Rotary position embedding (Su et al., 2021) in Meta's and in Hugging Face's layout."""

import math

import torch
from torch import nn

from quatrain.backbone.config import BackboneConfig


class Rope(nn.Module):
    """The cosines and sines of every position of the context, float32.

    Each table is [max_seq_len, head_dim / 2] for the interleaved layout; for the half-split
    layout the same columns stand twice, [max_seq_len, head_dim].
    """

    cos: torch.Tensor
    sin: torch.Tensor

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.half_split = config.use_hf_rope
        frequencies = _frequencies(config)
        angles = torch.outer(torch.arange(config.max_seq_len, device="cpu").float(), frequencies)
        if config.use_hf_rope:
            angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, start: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows of positions start .. start + length - 1 of both tables."""
        return self.cos.narrow(0, start, length), self.sin.narrow(0, start, length)


class InterleavedRotary(nn.Module):
    """Rotates neighbouring pairs (0, 1), (2, 3), ... of each head: Meta's layout.

    q [1, T, n_heads, head_dim], k [1, T, n_kv_heads, head_dim], cos and sin [T, head_dim / 2].
    """

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return _rotate_pairs(q, cos, sin), _rotate_pairs(k, cos, sin)


class HalfSplitRotary(nn.Module):
    """Rotates element i of a head with element i + head_dim / 2: Hugging Face's layout.

    q [1, T, n_heads, head_dim], k [1, T, n_kv_heads, head_dim], cos and sin [T, head_dim].
    """

    def forward(
        self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return _rotate_halves(q, cos, sin), _rotate_halves(k, cos, sin)


def rotary_for(config: BackboneConfig) -> nn.Module:
    return HalfSplitRotary() if config.use_hf_rope else InterleavedRotary()


def _rotate_pairs(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    # x as [1, T, heads, head_dim / 2, 2]; the tables broadcast over heads.
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)


def _rotate_halves(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    wide = x.float()
    first, second = wide.chunk(2, dim=-1)
    turned = wide * cos.unsqueeze(1) + torch.cat((-second, first), dim=-1) * sin.unsqueeze(1)
    return turned.to(x.dtype)


def _frequencies(config: BackboneConfig) -> torch.Tensor:
    """Radians per position for each of the head_dim / 2 planes, float32."""
    exponents = torch.arange(0, config.head_dim, 2, device="cpu").float() / config.head_dim
    frequencies = 1.0 / config.rope_theta**exponents
    return _llama3_scaled(frequencies, config) if config.use_scaled_rope else frequencies


def _llama3_scaled(frequencies: torch.Tensor, config: BackboneConfig) -> torch.Tensor:
    """Llama 3.1's scaling: planes whose wavelength exceeds the original context turn slower by
    `rope_scale_factor`, short ones are left alone, and those between are interpolated."""
    context = config.original_max_position_embeddings
    wavelengths = 2 * math.pi / frequencies
    smooth = (context / wavelengths - config.low_freq_factor) / (
        config.high_freq_factor - config.low_freq_factor
    )
    slowed = frequencies / config.rope_scale_factor
    between = (1 - smooth) * slowed + smooth * frequencies
    scaled = torch.where(wavelengths > context / config.low_freq_factor, slowed, between)
    return torch.where(wavelengths < context / config.high_freq_factor, frequencies, scaled)
