"""Alternating updates and learned augmented residuals (Gemma 3n).

There are several residual streams, side by side: [B, T, streams * dim]. Only the first goes through
a layer. Before the layer, each stream is predicted from all; after it, each is corrected by the
layer's result for the first (Baykal et al., 2023, "Alternating Updates for Efficient
Transformers"). Source: `Gemma3nTextAltUp`, `Gemma3nTextLaurelBlock` and `Gemma3nTextModel` of
transformers 5.
"""

import torch
from torch import nn

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.layers.norm import RMSNorm
from quatrain.backbone.layers.scaling import Factor

_SMALLEST = 1e-5  # of a mean square


class AltUp(nn.Module):
    """A layer's predictions and corrections.

    router [S, dim], predict [S * S, S], correct [S, S], scale [dim], S being `altup_num_inputs`.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.streams = streams = config.altup_num_inputs
        self.router = nn.Linear(config.dim, streams, bias=False)
        self.router_norm = RMSNorm(config.dim, config.norm_eps)
        self.scale_input = Factor(1.0 / config.dim)
        self.predict = nn.Linear(streams, streams * streams, bias=False)
        self.correct = nn.Linear(streams, streams, bias=False)
        self.scale = ChannelScale(config.dim)
        self.one = Offset(1.0)

    def predictions(self, x: torch.Tensor) -> list[torch.Tensor]:
        """What each stream of x [B, T, S * dim] is predicted to be, [B, T, dim] each."""
        texts, length, _ = x.shape
        first = x.narrow(-1, 0, x.shape[-1] // self.streams)
        weights = self.predict(self._modalities(first))
        # A row of weights for each stream, [B * T, S, S], times the streams, [B * T, S, dim].
        weights = weights.reshape(texts * length, self.streams, self.streams)
        streams = x.reshape(texts * length, self.streams, -1)
        predicted = (torch.bmm(weights, streams) + streams).reshape(texts, length, -1)
        return list(predicted.chunk(self.streams, dim=-1))

    def corrections(
        self, predictions: list[torch.Tensor], activated: torch.Tensor
    ) -> list[torch.Tensor]:
        """`predictions`, corrected by the layer's result for the first stream, [B, T, dim]."""
        weights = self.one(self.correct(self._modalities(activated)))
        innovation = activated - predictions[0]
        return [
            predicted + innovation * weights[..., index : index + 1]
            for index, predicted in enumerate(predictions)
        ]

    def _modalities(self, x: torch.Tensor) -> torch.Tensor:
        """[B, T, S] of x [B, T, dim]."""
        return torch.tanh(self.router(self.scale_input(self.router_norm(x))))


class ChannelScale(nn.Module):
    """`x * weight`: x [..., dim], weight [dim]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


class Offset(nn.Module):
    """`x + offset`, a tensor [1] as `Factor` has one."""

    offset: torch.Tensor

    def __init__(self, offset: float) -> None:
        super().__init__()
        value = torch.tensor([offset], dtype=torch.float32, device="cpu")
        self.register_buffer("offset", value, persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.offset


class AltUpEnds(nn.Module):
    """Several streams of one embedding, and one of the last layer's several.

    `projections` and `unembed`: a linear [dim, dim] for each stream but the first.
    """

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.streams = config.altup_num_inputs
        self.projections, self.unembed = (
            nn.ModuleList(
                nn.Linear(config.dim, config.dim, bias=False) for _ in range(1, self.streams)
            )
            for _ in range(2)
        )
        self.mean = Factor(1.0 / self.streams)

    def spread(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, T, dim] as [B, T, S * dim]."""
        others = [_with_magnitude_of(linear(x), x) for linear in self.projections]
        return torch.cat([x, *others], dim=-1)

    def merge(self, x: torch.Tensor) -> torch.Tensor:
        """x [B, T, S * dim] as [B, T, dim]."""
        first, *others = x.chunk(self.streams, dim=-1)
        total = first
        for linear, stream in zip(self.unembed, others, strict=True):
            total = total + _with_magnitude_of(linear(stream), first)
        return self.mean(total)


def _with_magnitude_of(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """x [..., dim] with the root mean square of `like`."""
    wanted = torch.sqrt((like * like).mean(-1, keepdim=True))
    found = torch.sqrt((x * x).mean(-1, keepdim=True).clamp(min=_SMALLEST))
    return x * (wanted / found)


class Laurel(nn.Module):
    """The learned augmented residual `x + norm(right(left(x)))` of x [B, T, dim], through
    `laurel_rank` channels."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.left = nn.Linear(config.dim, config.laurel_rank, bias=False)
        self.right = nn.Linear(config.laurel_rank, config.dim, bias=False)
        self.norm = RMSNorm(config.dim, config.norm_eps)
        self.scale_sum = Factor(2.0**-0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.norm(self.right(self.left(x)))
