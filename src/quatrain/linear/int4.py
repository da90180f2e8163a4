"""Linears with int4 group-wise weights, in the two activation schemes.

Both hold the buffers of torchao's `Int8DynActInt4WeightLinear`, so one state dict loads into
either (the weight-only module is that of ExecuTorch PR 20644). In eager mode each equals
torchao's result on the same buffers bit for bit.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.arithmetic import XNNPACK_ARITHMETIC, Arithmetic
from quatrain.linear.affine import (
    cast,
    dequantize_groups,
    dequantize_untraced,
    fake_quantize_rows,
    fake_quantize_tokens,
)

# The linears of a backbone that get only the last token of a call.
OF_LAST_TOKEN = ("output", "output_intermediate")


class Int4Linear(nn.Module):
    """The buffers that both schemes share; use one of the two classes below.

    Buffers: `weight` int8 [out_features, in_features] holding values in [-8, 7]; `scales` and
    `zeros` [out_features, in_features / groupsize] in `scales_precision`; `bias`
    [out_features] in `precision`, or None. The input [..., in_features] is cast to
    `precision`, the dtype of the result [..., out_features].

    Raises ValueError if in_features is not a multiple of groupsize.
    """

    weight: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor
    bias: torch.Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: torch.device | None = None,
        groupsize: int = 256,
        precision: torch.dtype = torch.float32,
        scales_precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if in_features % groupsize:
            raise ValueError(
                f"in_features {in_features} is not a multiple of groupsize {groupsize}; "
                "each row is cut into whole groups"
            )
        self.in_features = in_features
        self.out_features = out_features
        self.groupsize = groupsize
        self.precision = precision
        weight = torch.zeros((out_features, in_features), dtype=torch.int8, device=device)
        self.register_buffer("weight", weight)
        groups = (out_features, in_features // groupsize)
        for name in ("scales", "zeros"):
            self.register_buffer(name, torch.zeros(groups, dtype=scales_precision, device=device))
        stored = torch.zeros(out_features, dtype=precision, device=device) if bias else None
        self.register_buffer("bias", stored)
        self.frozen_weight: torch.Tensor | None = None

    def dequantized_weight(self) -> torch.Tensor:
        """The floating-point weight [out_features, in_features] in `precision`."""
        if self.frozen_weight is not None:
            return self.frozen_weight
        return dequantize_groups(
            self.weight, self.scales, self.zeros, self.groupsize, self.precision
        )


class WeightOnlyInt4Linear(Int4Linear):
    """`y = x @ dequantize(weight).T + bias`: floating-point activation, int4 weight."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.linear(cast(input, self.precision), self.dequantized_weight(), self.bias)


class Int8DynActInt4WeightLinear(Int4Linear):
    """`y = int8(x) @ dequantize(weight).T + bias`: x rounded per token to asymmetric int8.

    The activation's scale and zero point are float32, chosen for each token ("8da4w"). `arithmetic`
    is that of torchao and XNNPACK_ARITHMETIC unless `compute_as` changes it.
    """

    arithmetic: Arithmetic = XNNPACK_ARITHMETIC

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        activation = cast(input, self.precision)
        if self.arithmetic is XNNPACK_ARITHMETIC:
            activation = fake_quantize_tokens(activation, eps=XNNPACK_ARITHMETIC.smallest_scale)
        elif self.arithmetic.quantizes(activation.numel() // self.in_features):
            activation = fake_quantize_rows(activation, self.arithmetic.smallest_scale)
        return F.linear(activation, self.dequantized_weight(), self.bias)


def compute_as(module: nn.Module, arithmetic: Arithmetic) -> nn.Module:
    """Let each 8da4w linear of `module` compute in `arithmetic`; returns `module`.

    Those of `OF_LAST_TOKEN` see one row at a time on a phone, however many they are given here,
    except where a backbone's `every_row` says that they see all.
    """
    of_one_row = () if getattr(module, "every_row", False) else OF_LAST_TOKEN
    for name, child in module.named_modules():
        if isinstance(child, Int8DynActInt4WeightLinear):
            unquantized = name in of_one_row and not arithmetic.quantizes(rows=1)
            child.arithmetic = (
                replace(arithmetic, least_quantized_rows=None) if unquantized else arithmetic
            )
    return module


def without_activation_rounding(linear: Int4Linear) -> WeightOnlyInt4Linear:
    """The weight-only linear on the buffers of `linear`, which are shared, not copied."""
    weight_only = WeightOnlyInt4Linear(
        linear.in_features, linear.out_features, linear.bias is not None, torch.device("meta"),
        linear.groupsize, linear.precision, linear.scales.dtype,
    )  # fmt: skip
    weight_only.load_state_dict(linear.state_dict(), assign=True)
    return weight_only


def freeze_weights(module: nn.Module) -> nn.Module:
    """Dequantize each int4 linear's weight once, for fast eager inference; returns `module`.

    Dequantizing in every forward costs 40 times the matrix product at one token. Results do not
    change, memory grows by the floating-point weights, and the state dict stays the same.
    """
    for child in module.modules():
        if isinstance(child, Int4Linear):
            child.frozen_weight = dequantize_untraced(
                child.weight, child.scales, child.zeros, child.groupsize, child.precision
            )
    return module
