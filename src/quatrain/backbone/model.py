"""A Llama-family decoder, in Meta's parameter names, with its KV cache inside."""

from typing import cast

import torch
from torch import nn

from quatrain.backbone.attention import Attention
from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.feed_forward import FeedForward
from quatrain.backbone.kv_cache import CachedAttention
from quatrain.backbone.norm import RMSNorm
from quatrain.backbone.rope import Rope


class Block(nn.Module):
    """One layer: attention and feed-forward, each on a normed copy of the residual stream."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config)
        self.attention_norm = RMSNorm(config.dim, config.norm_eps)
        self.ffn_norm = RMSNorm(config.dim, config.norm_eps)

    def forward(
        self, x: torch.Tensor, angles: tuple[torch.Tensor, ...], start: int
    ) -> torch.Tensor:
        x = x + self.attention(self.attention_norm(x), angles, start)
        return x + self.feed_forward(self.ffn_norm(x))


class Backbone(nn.Module):
    """Prefill of any length and decode in one module.

    `embedding_input`: takes [1, T, dim] embeddings in place of token ids (no tok_embeddings).
    `hidden_output`: gives the final normed hidden states (no output linear).
    """

    def __init__(
        self, config: BackboneConfig, embedding_input: bool = False, hidden_output: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.tok_embeddings = (
            None if embedding_input else nn.Embedding(config.vocab_size, config.dim)
        )
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.output = (
            None if hidden_output else nn.Linear(config.dim, config.vocab_size, bias=False)
        )
        self.rope = Rope(config)

    def forward(self, tokens: torch.Tensor, input_pos: torch.Tensor) -> torch.Tensor:
        """tokens int64 [1, T] (or embeddings [1, T, dim]) at positions input_pos[0] onwards.

        input_pos int64 [1]. Returns the last token's logits [1, vocab_size], or with
        `hidden_output` every token's hidden state [1, T, dim]. The cache must hold the
        positions before; input_pos[0] + T may not exceed max_seq_len.
        """
        # Read once and handed down as a number: one .item() a layer would make one
        # unbacked symbol a layer in the traced program.
        start = cast(int, input_pos[0].item())
        hidden = self.hidden(tokens, start)
        return hidden if self.output is None else self.output(hidden[:, -1, :])

    def hidden(self, tokens: torch.Tensor, start: int) -> torch.Tensor:
        """The normed hidden states [1, T, dim] of T tokens from position `start` onwards."""
        x = tokens if self.tok_embeddings is None else self.tok_embeddings(tokens)
        length = x.shape[1]
        torch._check(start >= 0)
        torch._check(start + length <= self.config.max_seq_len)
        angles = self.rope(start, length)
        for layer in self.layers:
            x = layer(x, angles, start)
        return self.norm(x)

    def reset(self) -> None:
        """Forget the context: zero every KV cache."""
        for module in self.modules():
            if isinstance(module, CachedAttention):
                module.k_cache.zero_()
                module.v_cache.zero_()
