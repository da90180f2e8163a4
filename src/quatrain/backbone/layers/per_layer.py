"""Per-layer embeddings (Gemma 3n and 4): each token has an embedding for each layer, beside the one
that the first layer sees. They are wider than all else together, and are looked up, not multiplied.
"""

import torch
from torch import nn

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layers.feed_forward import activation
from quatrain.backbone.layers.norm import RMSNorm
from quatrain.backbone.layers.scaling import Factor


class PerLayerInputs(nn.Module):
    """What each layer gets of each token: `(norm(projection(x) / sqrt(dim)) + embeddings(token) *
    sqrt(P)) / sqrt(2)`, P being `per_layer_dim`.

    tokens int64 [B, T], x [B, T, dim] what the first layer sees; returns [B, T, n_layers, P].
    embeddings [vocab_size, n_layers * P], projection [n_layers * P, dim].
    Source: `Gemma4TextModel` in transformers 5.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.width = config.per_layer_dim
        table = torch.empty(config.vocab_size, config.n_layers * self.width)
        self.embeddings: nn.Module = nn.Embedding.from_pretrained(table, freeze=False)
        self.projection = nn.Linear(config.dim, config.n_layers * self.width, bias=False)
        self.norm = RMSNorm(self.width, config.norm_eps)
        self.scale_embedding = Factor(self.width**0.5)
        self.scale_projection = Factor(config.dim**-0.5)
        self.scale_sum = Factor(2.0**-0.5)

    def forward(self, tokens: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        of_context = self.scale_projection(self.projection(x)).unflatten(-1, (-1, self.width))
        of_token = self.scale_embedding(self.embeddings(tokens)).unflatten(-1, (-1, self.width))
        return self.scale_sum(self.norm(of_context) + of_token)


class PerLayerBranch(nn.Module):
    """Combines a layer with its own input: `norm(projection(act(gate(x)) * per_layer))`.

    x [B, T, dim], per_layer [B, T, P]; returns [B, T, dim]. gate [P, dim], projection [dim, P].
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.dim, config.per_layer_dim, bias=False)
        self.projection = nn.Linear(config.per_layer_dim, config.dim, bias=False)
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.activate = activation(config)

    def forward(self, x: torch.Tensor, per_layer: torch.Tensor) -> torch.Tensor:
        return self.norm(self.projection(self.activate(self.gate(x)) * per_layer))


class LayerScalar(nn.Module):
    """`x * weight`, a learned number [1] for all that a layer gives (Gemma 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight
