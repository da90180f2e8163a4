"""The layers of a quantized model while it is trained: each scale and each channel of a vector is
multiplied by a trained factor; integers are fixed, or are rounded from trained floats.

The logarithm of the factor is trained, so that a step of the optimizer changes all by the same
fraction and never the sign.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.int4 import INT4_MAX, INT4_MIN
from quatrain.quantize.distill.straight_through import (
    Dequantize,
    HeldLinear,
    QuantizedLinear,
    RoundRows,
    round_int4,
)

_WITHIN = 0.45  # of an integer, beyond 0.5 of which is the next


@dataclass
class Activations:
    """What linears do with their inputs: multiply them in `dtype`, and, where `int8`, round each
    row before as 8da4w does on Vulkan."""

    dtype: torch.dtype
    int8: bool = False


class Factor(nn.Module):
    """A tensor times factors of its own shape, 1 at first."""

    def __init__(self, like: torch.Tensor, trained: bool = True) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.zeros_like(like), requires_grad=trained)

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor * self.log.exp()


class ScaledIntegers(nn.Module):
    """Integers int8 [N, K] and their scales float32 [N, groups].

    `latent`: floats in units of one that int4 is rounded from, where the integers are trained.
    """

    first_integers: torch.Tensor
    first_scales: torch.Tensor

    def __init__(self, integers: torch.Tensor, scales: torch.Tensor, trained: bool) -> None:
        super().__init__()
        self.register_buffer("first_integers", integers)
        self.register_buffer("first_scales", scales)
        self.factor = Factor(scales, trained)
        self.latent: nn.Parameter | None = None

    def learn(self, exact: torch.Tensor) -> None:
        """Also train the integers, starting from `exact` [N, K], the weight that they were rounded
        from, or from the nearest value that rounds to them: those closest to another integer change
        first."""
        groups = self.first_integers.view(*self.first_scales.shape, -1)
        latent = exact.to(groups.device).float().view(groups.shape) / self.first_scales[..., None]
        latent = latent.clamp(groups - _WITHIN, groups + _WITHIN)
        self.latent = nn.Parameter(latent.flatten(1))

    def scales(self) -> torch.Tensor:
        return self.factor(self.first_scales)

    def integers(self) -> torch.Tensor:
        """int8 [N, K], of which no gradient is taken."""
        if self.latent is None:
            return self.first_integers
        return self.latent.detach().round().clamp_(INT4_MIN, INT4_MAX).to(torch.int8)

    def weight(self, dtype: torch.dtype) -> torch.Tensor:
        """The dequantized weight, [N, K] in `dtype`."""
        return Dequantize.apply(self.latent, self.integers(), self.scales(), dtype)

    def rows(self, picked: torch.Tensor) -> torch.Tensor:
        """The dequantized rows `picked` int64 [...], float32 [..., K]."""
        # Not by indexing, whose gradient depends on the order in which threads come to add.
        scales = F.embedding(picked, self.scales())
        if self.latent is None:
            integers = self.first_integers[picked]
        else:
            integers = round_int4(F.embedding(picked, self.latent))
        return (integers.unflatten(-1, (scales.shape[-1], -1)) * scales[..., None]).flatten(-2)


class StudentLinear(nn.Module):
    """x [..., K] to [..., N]."""

    bias: torch.Tensor | None

    def __init__(
        self, weight: ScaledIntegers, bias: torch.Tensor | None, activations: Activations
    ) -> None:
        super().__init__()
        self.weight, self.activations = weight, activations
        self.register_buffer("bias", bias)
        self._held: tuple[torch.Tensor, torch.Tensor | None] | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the weight once for several calls, each with a backward pass of its own."""
        weight = self.weight.weight(self.activations.dtype)
        grad = torch.zeros_like(weight) if weight.requires_grad else None
        self._held = weight.detach(), grad
        yield
        if grad is not None:
            weight.backward(grad)
        self._held = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dtype = self.activations.dtype
        if self.activations.int8:
            x = RoundRows.apply(x)
        x = x.to(dtype)
        if self._held is not None:
            made = HeldLinear.apply(x, *self._held)
        else:
            of = self.weight
            made = QuantizedLinear.apply(x, of.latent, of.integers(), of.scales())
        return made if self.bias is None else made + self.bias.to(dtype)


class StudentEmbedding(nn.Module):
    """tokens int64 [...] to float32 [..., K]."""

    def __init__(self, weight: ScaledIntegers) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.weight.rows(tokens)
