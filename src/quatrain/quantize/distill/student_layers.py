"""The layers of a quantized model while its floats are trained: integers stay as they are, each
scale and each channel of a vector is multiplied by a factor of its own.

The logarithm of the factor is trained, so that a step of the optimizer changes all by the same part
and none its sign.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.arithmetic import VULKAN_ARITHMETIC
from quatrain.linear.affine import fake_quantize_rows

_ELEMENTS_AT_ONCE = 1 << 18


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
    """Integers int8 [N, K] and their scales float32 [N, groups]."""

    integers: torch.Tensor
    first_scales: torch.Tensor

    def __init__(self, integers: torch.Tensor, scales: torch.Tensor, trained: bool) -> None:
        super().__init__()
        self.register_buffer("integers", integers)
        self.register_buffer("first_scales", scales)
        self.factor = Factor(scales, trained)

    def scales(self) -> torch.Tensor:
        return self.factor(self.first_scales)

    def weight(self, dtype: torch.dtype) -> torch.Tensor:
        """What they stand for, [N, K] in `dtype`."""
        return _Dequantize.apply(self.integers, self.scales(), dtype)  # type: ignore[no-any-return]


class StudentLinear(nn.Module):
    """x [..., K] to [..., N]."""

    bias: torch.Tensor | None

    def __init__(
        self, weight: ScaledIntegers, bias: torch.Tensor | None, activations: Activations
    ) -> None:
        super().__init__()
        self.weight, self.activations = weight, activations
        self.register_buffer("bias", bias)
        self._held: torch.Tensor | None = None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the weight once for several calls, each with a backward pass of its own."""
        weight = self.weight.weight(self.activations.dtype)
        self._held = weight.detach().requires_grad_(weight.requires_grad)
        yield
        if weight.requires_grad:
            weight.backward(self._held.grad)
        self._held = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        dtype = self.activations.dtype
        if self.activations.int8:
            x = _RoundRows.apply(x)  # type: ignore[assignment]
        bias = None if self.bias is None else self.bias.to(dtype)
        weight = self.weight.weight(dtype) if self._held is None else self._held
        return F.linear(x.to(dtype), weight, bias)


class StudentEmbedding(nn.Module):
    """tokens int64 [...] to float32 [..., K]."""

    def __init__(self, weight: ScaledIntegers) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        # Not by indexing, whose gradient depends on the order in which threads come to add.
        scales = F.embedding(tokens, self.weight.scales())
        integers = self.weight.integers[tokens].unflatten(-1, (scales.shape[-1], -1))
        return (integers * scales[..., None]).flatten(-2)


def _blocks(groups: torch.Tensor) -> list[slice]:
    """Rows of [N, groups, g] that a core's cache holds."""
    at_once = max(1, _ELEMENTS_AT_ONCE // groups[0].numel())
    return [slice(first, first + at_once) for first in range(0, len(groups), at_once)]


class _Dequantize(torch.autograd.Function):
    """Integers times scales, these in bfloat16's values as they will be stored: a rounding that the
    gradient passes by."""

    @staticmethod
    def forward(
        ctx: Any, integers: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype
    ) -> torch.Tensor:
        groups = integers.view(*scales.shape, -1)
        ctx.save_for_backward(groups)
        stored = scales.bfloat16().to(dtype)[..., None]
        weight = torch.empty(groups.shape, dtype=dtype, device=groups.device)
        for rows in _blocks(groups):
            torch.mul(groups[rows], stored[rows], out=weight[rows])
        return weight.flatten(1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[None, torch.Tensor, None]:
        (groups,) = ctx.saved_tensors
        grad = grads[0].view(groups.shape)
        found = torch.empty(groups.shape[:2], device=groups.device)
        for rows in _blocks(groups):
            found[rows] = (grad[rows] * groups[rows]).sum(-1, dtype=torch.float32)
        return None, found, None


class _RoundRows(torch.autograd.Function):
    """Each row rounded to int8 and back: a rounding that the gradient passes by."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return fake_quantize_rows(x.float(), VULKAN_ARITHMETIC.smallest_scale)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0]
