"""One layer of a backbone: what mixes tokens, and its feed-forward, around the residual stream."""

import torch
from torch import nn

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layer_config import Layer
from quatrain.backbone.layers.alt_up import AltUp, Laurel
from quatrain.backbone.layers.attention import Attention
from quatrain.backbone.layers.feed_forward import FeedForward
from quatrain.backbone.layers.gated_delta_net import GatedDeltaNet
from quatrain.backbone.layers.kv_cache import CachedAttention
from quatrain.backbone.layers.latent_attention import LatentAttention
from quatrain.backbone.layers.mamba import Mamba2
from quatrain.backbone.layers.moe import MixtureOfExperts
from quatrain.backbone.layers.norm import InputScaledNorm, RMSNorm, stream_norm
from quatrain.backbone.layers.per_layer import LayerScalar, PerLayerBranch
from quatrain.backbone.layers.residual import GatedResidual
from quatrain.backbone.layers.scaling import factor_or_none
from quatrain.backbone.layers.short_conv import ShortConv


class Block(nn.Module):
    """One layer: attention, a gated delta rule, a short convolution or a state space, and
    feed-forward, each on a normed copy of the residual stream.

    Without norms before them (OLMo 2) each reads the stream itself; in parallel (Cohere) both read
    one normed copy, or each one of its own (GPT-NeoX). Attention and a state space beside it
    (Falcon-H1) read the same one too, and their outputs are added.
    """

    def __init__(self, config: BackboneConfig, layer: Layer) -> None:
        super().__init__()
        self.rope = layer.rope
        self.kv_source = layer.kv_source
        self.attention = _attention(config, layer)
        self.conv = ShortConv(config) if layer.conv else None
        self.mamba = Mamba2(config) if layer.mamba else None
        self.feed_forward = _feed_forward(config, layer) if layer.feed_forward else None
        self.attention_norm = stream_norm(config) if config.pre_norm else None
        parallel = config.parallel_residual
        one_norm = parallel and not config.parallel_ffn_norm
        second = layer.feed_forward and config.pre_norm and not one_norm
        self.ffn_norm = stream_norm(config) if second else None
        self.parallel = parallel
        self.post_attention_norm, self.post_ffn_norm = _post_norms(config)
        self.scale_branch = factor_or_none(config.residual_multiplier)
        self.add_attn = GatedResidual(config.dim) if config.use_residual_gate else None
        self.add_ffn = GatedResidual(config.dim) if config.use_residual_gate else None
        self.per_layer = PerLayerBranch(config) if config.per_layer_dim else None
        self.alt_up = AltUp(config) if config.altup_num_inputs > 1 else None
        self.laurel = Laurel(config) if config.laurel_rank else None
        self.layer_scalar = LayerScalar() if config.use_layer_scalar else None

    def forward(
        self,
        x: torch.Tensor,
        angles: tuple[torch.Tensor, ...],
        start: int,
        kv_source: CachedAttention | None = None,
        per_layer: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x [B, T, dim], of several streams beside each other, and the rest as for `Attention`,
        `per_layer` [B, T, per_layer_dim] if there is such; returns what x is."""
        if self.alt_up is not None:
            predictions = self.alt_up.predictions(x)
            made = self._branches(predictions[0], angles, start, kv_source)
            first, *others = self.alt_up.corrections(predictions, made)
            assert self.per_layer is not None and per_layer is not None
            own = self.per_layer(self.alt_up.scale(first), per_layer)
            return torch.cat([first, *(other + own for other in others)], dim=-1)
        x = self._branches(x, angles, start, kv_source)
        if self.per_layer is not None:
            assert per_layer is not None
            x = x + self.per_layer(x, per_layer)
        return x if self.layer_scalar is None else self.layer_scalar(x)

    def _branches(
        self,
        x: torch.Tensor,
        angles: tuple[torch.Tensor, ...],
        start: int,
        kv_source: CachedAttention | None,
    ) -> torch.Tensor:
        """The stream x [B, T, dim] with what attention and feed-forward give."""
        stream = x
        normed = x if self.attention_norm is None else self.attention_norm(x)
        branch = self._mixed(normed, angles, start, kv_source)
        x = self._add(x, branch, self.post_attention_norm, self.add_attn)
        if self.laurel is not None:
            x = self.laurel.scale_sum(x + self.laurel(normed))
        if self.feed_forward is None:
            return x
        read = stream if self.parallel else x
        if self.ffn_norm is not None:
            normed = self.ffn_norm(read)
        elif not self.parallel:
            normed = read
        branch = self.feed_forward(normed)
        return self._add(x, branch, self.post_ffn_norm, self.add_ffn)

    def _mixed(
        self,
        normed: torch.Tensor,
        angles: tuple[torch.Tensor, ...],
        start: int,
        kv_source: CachedAttention | None,
    ) -> torch.Tensor:
        """What mixes tokens, of the normed stream [B, T, dim]."""
        if isinstance(self.attention, GatedDeltaNet):
            return self.attention(normed, start)
        if isinstance(self.attention, LatentAttention):
            return self.attention(normed, angles, start)
        if self.attention is None:
            mixer = self.conv or self.mamba
            assert mixer is not None
            return mixer(normed, start)
        branch = self.attention(normed, angles, start, kv_source)
        return branch if self.mamba is None else branch + self.mamba(normed, start)

    def _add(
        self,
        x: torch.Tensor,
        branch: torch.Tensor,
        norm: nn.Module | None,
        residual: nn.Module | None,
    ) -> torch.Tensor:
        if norm is not None:
            branch = norm(branch)
        if self.scale_branch is not None:
            branch = self.scale_branch(branch)
        return x + branch if residual is None else residual(x, branch)


def _attention(
    config: BackboneConfig, layer: Layer
) -> Attention | LatentAttention | GatedDeltaNet | None:
    if layer.delta:
        return GatedDeltaNet(config)
    if layer.latent:
        return LatentAttention(config, layer)
    return Attention(config, layer) if layer.attends else None


def _feed_forward(config: BackboneConfig, layer: Layer) -> nn.Module:
    if layer.moe:
        return MixtureOfExperts(config)
    return FeedForward(config, layer.hidden_dim, config.feed_forward_bias, layer.sparsity)


def _post_norms(config: BackboneConfig) -> tuple[nn.Module | None, nn.Module | None]:
    """The norms of what attention and feed-forward give, before it joins the stream."""
    attention = feed_forward = None
    if config.use_residual_gate or config.post_attention_norm:
        attention = RMSNorm(config.dim, config.norm_eps, affine=config.post_attention_norm)
    if config.use_ffn_learnable_scales:
        feed_forward = InputScaledNorm(config.dim, config.norm_eps)
    elif config.post_ffn_norm:
        feed_forward = RMSNorm(config.dim, config.norm_eps)
    return attention, feed_forward
