"""Roundings that the gradient passes by (straight-through estimators: Bengio et al., 2013), and the
products of what they give."""

from typing import Any

import torch
import torch.nn.functional as F

from quatrain.arithmetic import VULKAN_ARITHMETIC
from quatrain.int4 import INT4_MAX, INT4_MIN
from quatrain.linear.affine import fake_quantize_rows

_ELEMENTS_AT_ONCE = 1 << 18


def round_int4(latent: torch.Tensor) -> torch.Tensor:
    """The integers of int4: a rounding that the gradient passes by."""
    return latent + (latent.round().clamp(INT4_MIN, INT4_MAX) - latent).detach()


def _blocks(groups: torch.Tensor) -> list[slice]:
    """Rows of [N, groups, g]: on a processor those that a core's cache holds."""
    rows = max(1, _ELEMENTS_AT_ONCE // groups[0].numel()) if groups.is_cpu else len(groups)
    return [slice(first, first + rows) for first in range(0, len(groups), rows)]


def _dequantized(groups: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
    """Integers [N, groups, g] times scales [N, groups, 1], [N, K] in the type of these."""
    weight = torch.empty(groups.shape, dtype=stored.dtype, device=groups.device)
    for rows in _blocks(groups):
        torch.mul(groups[rows], stored[rows], out=weight[rows])
    return weight.flatten(1)


def _of_scales(grad: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """The gradient of the scales, float32 [N, groups], from that of the weight, [N, K]."""
    grad = grad.view(groups.shape)
    of_scales = torch.empty(groups.shape[:2], device=groups.device)
    for rows in _blocks(groups):
        of_scales[rows] = (grad[rows] * groups[rows]).sum(-1, dtype=torch.float32)
    return of_scales


def _gradient_of_latent(grad: torch.Tensor, stored: torch.Tensor) -> torch.Tensor:
    """The gradient of what integers were rounded from, float32 [N, K], from that of the weight."""
    return (grad.unflatten(-1, (stored.shape[1], -1)) * stored).flatten(1).float()


def _as_stored(
    integers: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Integers [N, groups, g] and their scales [N, groups, 1] in bfloat16's values, as they will be
    stored."""
    return integers.view(*scales.shape, -1), scales.bfloat16().to(dtype)[..., None]


class Dequantize(torch.autograd.Function):
    """Integers times scales, these as they will be stored: a rounding that the gradient passes by,
    as it does that of `latent`, None or what the integers were rounded from."""

    @staticmethod
    def forward(
        ctx: Any,
        latent: torch.Tensor | None,
        integers: torch.Tensor,
        scales: torch.Tensor,
        dtype: torch.dtype,
    ) -> torch.Tensor:
        groups, stored = _as_stored(integers, scales, dtype)
        ctx.save_for_backward(groups, stored)
        return _dequantized(groups, stored)

    @staticmethod
    def backward(
        ctx: Any, *grads: torch.Tensor
    ) -> tuple[torch.Tensor | None, None, torch.Tensor, None]:
        groups, stored = ctx.saved_tensors
        of_latent = _gradient_of_latent(grads[0], stored) if ctx.needs_input_grad[0] else None
        return of_latent, None, _of_scales(grads[0], groups), None


class QuantizedLinear(torch.autograd.Function):
    """x [..., K] times the weight that `Dequantize` computes from the other arguments. The weight
    is computed again for the gradient: otherwise the floating-point weights of all layers would be
    in memory at once."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        latent: torch.Tensor | None,
        integers: torch.Tensor,
        scales: torch.Tensor,
    ) -> torch.Tensor:
        groups, stored = _as_stored(integers, scales, x.dtype)
        ctx.save_for_backward(x, groups, stored)
        return F.linear(x, _dequantized(groups, stored))

    @staticmethod
    def backward(
        ctx: Any, *grads: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None, None, torch.Tensor | None]:
        x, groups, stored = ctx.saved_tensors
        of_x = grads[0] @ _dequantized(groups, stored)
        _, learns, _, trained = ctx.needs_input_grad
        if not (learns or trained):
            return of_x, None, None, None
        of_weight = grads[0].flatten(0, -2).T @ x.flatten(0, -2)
        of_latent = _gradient_of_latent(of_weight, stored) if learns else None
        return of_x, of_latent, None, _of_scales(of_weight, groups) if trained else None


class HeldLinear(torch.autograd.Function):
    """x [..., K] times `weight` [N, K], whose gradient is added to `of_weight`, if it is one."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, of_weight: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.of_weight = of_weight
        return F.linear(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, weight = ctx.saved_tensors
        if ctx.of_weight is not None:
            ctx.of_weight.addmm_(grads[0].flatten(0, -2).T, x.flatten(0, -2))
        return grads[0] @ weight, None, None


class RoundRows(torch.autograd.Function):
    """Each row rounded to int8 and back: a rounding that the gradient passes by."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return fake_quantize_rows(x.float(), VULKAN_ARITHMETIC.smallest_scale)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        return grads[0]
