"""A Llama-family decoder, in Meta's parameter names, with its KV cache inside."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from quatrain.backbone.alt_up import AltUp, AltUpEnds, Laurel
from quatrain.backbone.attention import Attention
from quatrain.backbone.config import BackboneConfig, Layer
from quatrain.backbone.feed_forward import FeedForward
from quatrain.backbone.gated_delta_net import GatedDeltaNet
from quatrain.backbone.kv_cache import CachedAttention
from quatrain.backbone.moe import MixtureOfExperts
from quatrain.backbone.norm import InputScaledNorm, RMSNorm, stream_norm
from quatrain.backbone.per_layer import LayerScalar, PerLayerBranch, PerLayerInputs
from quatrain.backbone.pruned_vocabulary import ExpandLogits, embedding_rows, output_rows
from quatrain.backbone.residual import GatedResidual
from quatrain.backbone.rope import Rope
from quatrain.backbone.scaling import SoftCap, factor_or_none
from quatrain.backbone.short_conv import ShortConv

OwnInputs = Sequence[torch.Tensor] | None  # of each layer, where it has one besides the stream


class Block(nn.Module):
    """One layer: attention, a gated delta rule or a short convolution, and feed-forward, each on a
    normed copy of the residual stream.

    Without norms before them (OLMo 2) each reads the stream itself; in parallel (Cohere) both read
    one normed copy.
    """

    def __init__(self, config: BackboneConfig, layer: Layer) -> None:
        super().__init__()
        self.rope = layer.rope
        self.kv_source = layer.kv_source
        self.attention = _attention(config, layer)
        self.conv = ShortConv(config) if layer.conv else None
        self.feed_forward = _feed_forward(config, layer)
        self.attention_norm = stream_norm(config) if config.pre_norm else None
        parallel = config.parallel_residual
        self.ffn_norm = stream_norm(config) if config.pre_norm and not parallel else None
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
        `per_layer` [B, T, per_layer_dim] where there is such; returns what x is."""
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
        normed = x if self.attention_norm is None else self.attention_norm(x)
        if isinstance(self.attention, Attention):
            branch = self.attention(normed, angles, start, kv_source)
        else:
            mixer = self.conv or self.attention
            assert mixer is not None
            branch = mixer(normed, start)
        x = self._add(x, branch, self.post_attention_norm, self.add_attn)
        if self.laurel is not None:
            x = self.laurel.scale_sum(x + self.laurel(normed))
        if not self.parallel:
            normed = x if self.ffn_norm is None else self.ffn_norm(x)
        branch = self.feed_forward(normed)
        return self._add(x, branch, self.post_ffn_norm, self.add_ffn)

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


def _attention(config: BackboneConfig, layer: Layer) -> Attention | GatedDeltaNet | None:
    if layer.delta:
        return GatedDeltaNet(config)
    return None if layer.conv else Attention(config, layer)


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


class Backbone(nn.Module):
    """Prefill of any length and decode in one module.

    `embedding_input`: takes [1, T, dim] embeddings in place of token ids (no tok_embeddings),
    as the layers see them: what params.json does to embeddings, such as normalizing or scaling
    them, is then their maker's part.
    `hidden_output`: gives the final normed hidden states (no output linear). Without `blocks` it
    is what lies around the layers alone.
    """

    def __init__(
        self,
        config: BackboneConfig,
        embedding_input: bool = False,
        hidden_output: bool = False,
        blocks: bool = True,
    ) -> None:
        super().__init__()
        self.config = config
        plans = [config.layer(index) for index in range(config.n_layers if blocks else 0)]
        self.tok_embeddings = self.tok_norm = self.scale_embedding = self.per_layer = None
        if not embedding_input:
            # Of an empty table: to draw a random one on the meta device imports the compiler.
            table = torch.empty(embedding_rows(config), config.dim)
            self.tok_embeddings = nn.Embedding.from_pretrained(table, freeze=False)
            if config.normalize_tok_embeddings:
                self.tok_norm = RMSNorm(config.dim, config.norm_eps, affine=False)
            self.scale_embedding = factor_or_none(config.embedding_scale_factor)
            self.per_layer = PerLayerInputs(config) if config.per_layer_dim else None
        self.alt_up = AltUpEnds(config) if config.altup_num_inputs > 1 else None
        self.layers = nn.ModuleList(Block(config, plan) for plan in plans)
        self.norm = stream_norm(config)
        self.output = self.output_intermediate = self.expand = None
        self.scale_logits = self.cap_logits = None
        if not hidden_output:
            width = config.output_linear_intermediate_dim
            if width:
                self.output_intermediate = nn.Linear(config.dim, width, bias=False)
            self.output = nn.Linear(width or config.dim, output_rows(config), bias=False)
            self.scale_logits = factor_or_none(1.0 / config.logits_scaling)
            if config.output_soft_cap_temp is not None:
                self.cap_logits = SoftCap(config.output_soft_cap_temp)
            if config.output_prune_map is not None:
                self.expand = ExpandLogits(config.output_prune_map, config.vocab_size)
        self.rope = Rope(config)
        has_local = any(plan.rope == "local" for plan in plans)
        self.local_rope = Rope(config, local=True) if has_local else None

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
        """tokens int64 [1, T] (or embeddings [1, T, dim]) at positions input_pos[0] onwards.

        With `input_prune_map` a token is the row that the map gives a token id. input_pos int64
        [1]. Returns the last token's logits [1, vocab_size], -inf for what `output_prune_map`
        leaves out; with `hidden_output` every token's hidden state [1, T, dim]. The cache must
        hold the positions before; input_pos[0] + T may not exceed max_seq_len.
        """
        # Read once and handed down as a number: one .item() a layer would make one
        # unbacked symbol a layer in the traced program.
        start = cast(int, input_pos[0].item())
        hidden = self.hidden(tokens, start)
        return hidden if self.output is None else self.logits(hidden[:, -1, :])

    def hidden(self, tokens: torch.Tensor, start: int) -> torch.Tensor:
        """The normed hidden states [1, T, dim] of T tokens from position `start` onwards."""
        x = self.embed(tokens)
        return self.normed(self.run_layers(x, start, own=self.own_inputs(tokens, x)))

    def normed(self, x: torch.Tensor) -> torch.Tensor:
        """The normed hidden states [1, T, dim] of what the last layer gives."""
        return self.norm(x if self.alt_up is None else self.alt_up.merge(x))

    def run_layers(
        self,
        x: torch.Tensor,
        start: int,
        first: int = 0,
        end: int | None = None,
        own: OwnInputs = None,
    ) -> torch.Tensor:
        """What the layers from `first` to before `end` make of the input x [1, T, dim], and of
        what each layer gets besides, of `own_inputs`."""
        length = x.shape[1]
        torch._check(start >= 0)
        torch._check(start + length <= self.config.max_seq_len)
        angles = self.rope(start, length)
        local = angles if self.local_rope is None else self.local_rope(start, length)
        every = own or [None] * len(self.layers)
        for layer, of_layer in zip(self.layers[first:end], every[first:end], strict=True):
            cache = None if layer.kv_source is None else self._cache_of(cast(int, layer.kv_source))
            x = layer(x, local if layer.rope == "local" else angles, start, cache, of_layer)
        return x

    def _cache_of(self, layer: int) -> CachedAttention:
        attention = cast(Block, self.layers[layer]).attention
        assert isinstance(attention, Attention) and attention.attend is not None
        return attention.attend

    def own_inputs(self, tokens: torch.Tensor, x: torch.Tensor) -> OwnInputs:
        """What each layer gets besides the stream, [1, T, per_layer_dim] each, of tokens int64
        [1, T] and what the first layer sees of them; None where layers get nothing else."""
        if self.per_layer is None:
            return None
        return self.per_layer(tokens, x[..., : self.config.dim]).unbind(2)

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """What the first layer sees, [1, T, dim], of several streams beside each other."""
        if self.tok_embeddings is None:
            return tokens
        x = self.tok_embeddings(tokens)
        if self.tok_norm is not None:
            x = self.tok_norm(x)
        x = x if self.scale_embedding is None else self.scale_embedding(x)
        return x if self.alt_up is None else self.alt_up.spread(x)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logits [..., vocab_size] of normed hidden states [..., dim]."""
        if self.output_intermediate is not None:
            hidden = self.output_intermediate(hidden)
        assert self.output is not None
        logits = self.output(hidden)
        if self.scale_logits is not None:
            logits = self.scale_logits(logits)
        if self.cap_logits is not None:
            logits = self.cap_logits(logits)
        return logits if self.expand is None else self.expand(logits)

    def make_room(self, texts: int, length: int) -> None:
        """Empty every KV cache, for `texts` texts side by side of up to `length` tokens each."""
        for module in self.modules():
            if isinstance(module, CachedAttention):
                module.make_room(texts, length)

    @property
    def rewinds(self) -> bool:
        """Whether a call may go back in the context: a short convolution keeps its last inputs
        alone, a delta rule its last state."""
        return not {"conv", "linear_attention"} & {*(self.config.layer_types or ())}

    def reset(self) -> None:
        """Forget the context: zero every KV cache. What convolutions and delta rules keep goes at
        position 0."""
        for module in self.modules():
            if isinstance(module, CachedAttention):
                module.k_cache.zero_()
                module.v_cache.zero_()
