"""Int4 linears for kernels that need positive scales, such as XNNPACK's.

Some checkpoints have groups with a negative scale: those made only for Vulkan, and those that keep
GGUF's Q4_0 (see `quatrain.quantize.methods.int4_blocks`). If such a group has a -8, its value of
eight times the scale's magnitude cannot be represented with a positive scale: the group is
requantized. The number of such groups, and the error, are counted.
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
        """Of the linears that have such groups, against the stored weights; a fraction."""
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

    Linears without a negative scale are not changed and stay mapped from their file. The others get
    new tensors: a byte a weight.
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
