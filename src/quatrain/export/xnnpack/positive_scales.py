"""Int4 linears for kernels that take positive scales only, as XNNPACK's do.

Some checkpoints have groups with a negative scale: those that are made for Vulkan alone, and what
GGUF's Q4_0 is kept as (see `quatrain.quantize.methods.int4_blocks`). One of those with a -8 holds
eight times its scale's magnitude, which no positive scale says together with its other values: it
is rounded again, and how many were, and what that changed, is counted.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import nn

from quatrain.linear.int4 import Int4Linear
from quatrain.quantize.methods.round_to_nearest import quantize_groups, squared_error


@dataclass
class RoundedAgain:
    """`rounded` of `groups` int4 groups have other values than the checkpoint's.

    `squared_error` and `squared_weight` are sums over all weights of the int4 linears that have
    such groups.
    """

    groups: int = 0
    rounded: int = 0
    squared_error: float = 0.0
    squared_weight: float = 0.0

    @property
    def relative_rms_error(self) -> float:
        return sqrt(self.squared_error / self.squared_weight) if self.squared_weight else 0.0

    def __str__(self) -> str:
        return (
            f"XNNPACK's int4 kernels need positive scales: {self.rounded} of {self.groups} "
            "groups, whose scale is negative, are requantized. That changes the weights by "
            f"{self.relative_rms_error:.2%} (relative RMS); Vulkan's kernels keep them. A model "
            "that was quantized with --backend vulkan can be quantized without it"
        )


def make_scales_positive(backbone: nn.Module) -> RoundedAgain:
    """Give, in place, each int4 linear of `backbone` positive scales, and integers to fit.

    Linears without a negative scale stay as they are, mapped from their file. The others get
    tensors of their own: a byte a weight.
    """
    counted = RoundedAgain()
    for linear in backbone.modules():
        if isinstance(linear, Int4Linear):
            counted.groups += linear.scales.numel()
            if bool((linear.scales < 0).any()):
                _make_positive(linear, counted)
    return counted


def _make_positive(linear: Int4Linear, counted: RoundedAgain) -> None:
    values, scales = positive_scales(linear.weight, linear.scales)
    before = linear.dequantized_weight()
    error, total = squared_error(before, values, scales)
    counted.rounded += int((linear.scales < 0).sum())
    counted.squared_error += error
    counted.squared_weight += total
    linear.weight, linear.scales = values, scales


def positive_scales(
    values: torch.Tensor, scales: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(values, scales) of the same shapes, each group with a negative scale rounded again.

    `values` int8 [..., K] in [-8, 7], `scales` float32 [..., K / group size].
    """
    group_size = values.shape[-1] // scales.shape[-1]
    groups = values.reshape(-1, group_size).clone()
    scale = scales.reshape(-1).clone()
    negative = scale < 0
    weights = groups[negative] * scale[negative, None]
    groups[negative], new_scale = quantize_groups(weights, group_size)
    scale[negative] = new_scale[:, 0]
    return groups.view_as(values), scale.view_as(scales)
