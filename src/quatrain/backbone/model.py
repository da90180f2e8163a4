"""A Llama-family decoder, in Meta's parameter names, with its KV cache inside."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from quatrain.backbone.block import Block
from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layers.alt_up import AltUpEnds
from quatrain.backbone.layers.attention import Attention
from quatrain.backbone.layers.kv_cache import CachedAttention
from quatrain.backbone.layers.learned_positions import LearnedPositions
from quatrain.backbone.layers.norm import RMSNorm, stream_norm
from quatrain.backbone.layers.output_bias import OutputBias
from quatrain.backbone.layers.per_layer import PerLayerInputs
from quatrain.backbone.layers.rope import Rope
from quatrain.backbone.layers.scaling import SoftCap, factor_or_none
from quatrain.backbone.pruned_vocabulary import ExpandLogits, embedding_rows, output_rows

OwnInputs = Sequence[torch.Tensor] | None  # of each layer, where it has one besides the stream


class Backbone(nn.Module):
    """Prefill of any length and decode in one module.

    `embedding_input`: takes [1, T, dim] embeddings in place of token ids (no tok_embeddings), as
    the layers see them but for learned positions: steps of params.json for embeddings, such as
    normalizing or scaling them, are then up to the caller.
    `hidden_output`: gives the final normed hidden states (no output linear). Without `blocks` it
    has no layers, only what lies around them. `every_row`: whether the output layer computes the
    logits of every token, of which the last are given; False to begin with.
    """

    def __init__(
        self,
        config: BackboneConfig,
        embedding_input: bool = False,
        hidden_output: bool = False,
        blocks: bool = True,
    ) -> None:
        super().__init__()
        self.config, self.every_row = config, False
        self.metadata: dict[str, int] = {}  # as a runner's: "get_max_seq_len" limits its calls
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
        self.positions = LearnedPositions(config) if config.learned_positions else None
        self.alt_up = AltUpEnds(config) if config.altup_num_inputs > 1 else None
        self.layers = nn.ModuleList(Block(config, plan) for plan in plans)
        self.norm = stream_norm(config)
        self.output = self.output_intermediate = self.output_bias = self.expand = None
        self.scale_logits = self.cap_logits = None
        if not hidden_output:
            width = config.output_linear_intermediate_dim
            if width:
                self.output_intermediate = nn.Linear(config.dim, width, bias=False)
            self.output = nn.Linear(width or config.dim, output_rows(config), bias=False)
            self.output_bias = OutputBias(output_rows(config)) if config.output_bias else None
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
        if self.output is None:
            return hidden
        return self.logits(hidden)[:, -1] if self.every_row else self.logits(hidden[:, -1, :])

    def hidden(self, tokens: torch.Tensor, start: int) -> torch.Tensor:
        """The normed hidden states [1, T, dim] of T tokens from position `start` onwards."""
        torch._check(start >= 0)
        torch._check(start + tokens.shape[1] <= self.config.max_seq_len)
        x = self.embed(tokens, start)
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
        """What each layer gets besides the stream, [1, T, per_layer_dim] each, of tokens int64 [1,
        T] and what the first layer sees of them; None if layers get nothing else."""
        if self.per_layer is None:
            return None
        return self.per_layer(tokens, x[..., : self.config.dim]).unbind(2)

    def embed(self, tokens: torch.Tensor, start: int = 0) -> torch.Tensor:
        """What the first layer sees of tokens from position `start` on, [1, T, dim], of several
        streams beside each other."""
        x = tokens if self.tok_embeddings is None else self._embedded(tokens)
        return x if self.positions is None else self.positions(x, start)

    def _embedded(self, tokens: torch.Tensor) -> torch.Tensor:
        assert self.tok_embeddings is not None
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
        if self.output_bias is not None:
            logits = self.output_bias(logits)
        if self.scale_logits is not None:
            logits = self.scale_logits(logits)
        if self.cap_logits is not None:
            logits = self.cap_logits(logits)
        return logits if self.expand is None else self.expand(logits)

    def make_room(
        self,
        texts: int,
        length: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Empty every KV cache, for `texts` texts side by side of up to `length` tokens each."""
        for module in self.modules():
            if isinstance(module, CachedAttention):
                module.make_room(texts, length, dtype=dtype, device=device)

    @property
    def rewinds(self) -> bool:
        """Whether a call may go back in the context: a short convolution keeps only its last
        inputs, a delta rule or a state space only its last state."""
        kept = {"conv", "linear_attention", "mamba", "hybrid"}
        return not kept & {*(self.config.layer_types or ())}

    def reset(self) -> None:
        """Forget the context: zero every KV cache. What convolutions, delta rules and state spaces
        keep goes at position 0."""
        for module in self.modules():
            if isinstance(module, CachedAttention):
                module.k_cache.zero_()
                module.v_cache.zero_()
