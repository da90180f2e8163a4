"""Decides, before lowering, which kernel each linear of a backbone becomes."""

from dataclasses import dataclass

from torch import nn

from quatrain.errors import InputError
from quatrain.export.options import ExportOptions
from quatrain.int4 import XNNPACK_GROUP_SIZES
from quatrain.linear import (
    Int8DynActInt4WeightLinear,
    Int8DynActInt8WeightLinear,
    WeightOnlyInt4Linear,
)
from quatrain.linear.int4 import Int4Linear
from quatrain.program.vulkan.linear_kernels import DYNAMIC_LINEAR, WEIGHT_ONLY_LINEAR
from quatrain.short_lists import and_more

# (backend, what the checkpoint holds) -> the kernel that computes it.
_KERNELS: dict[tuple[str, type[nn.Module]], str] = {
    ("vulkan", Int8DynActInt4WeightLinear): DYNAMIC_LINEAR,
    ("vulkan", WeightOnlyInt4Linear): WEIGHT_ONLY_LINEAR,
    ("vulkan", nn.Linear): "aten.linear",
    ("xnnpack", Int8DynActInt4WeightLinear): "xnnpack.qd8_f32_qb4w",
    ("xnnpack", Int8DynActInt8WeightLinear): "xnnpack.qd8_f32_qc8w",
    ("xnnpack", nn.Linear): "xnnpack.f32",
}

_WHY_NOT = {
    ("vulkan", Int8DynActInt8WeightLinear): (
        "is int8 per channel and has int8 activations in both schemes, for which ExecuTorch's "
        "Vulkan delegate has no kernel; round it to int4 with `quatrain convert --output-layer "
        "int4`, or export 8da4w with --backend xnnpack"
    ),
    ("xnnpack", WeightOnlyInt4Linear): (
        "XNNPACK in ExecuTorch has no int4 group-wise kernel for floating-point activations; "
        "export 8da4w, or use --backend vulkan"
    ),
    # Source: `_check_per_channel_group_params` of ExecuTorch's `backends/xnnpack`.
    ("xnnpack", Int8DynActInt4WeightLinear): (
        "has groups of fewer than 32 weights, but XNNPACK's kernels support only multiples of "
        "32; quantize the floating-point model again with --group-size 32, or use `quatrain "
        "convert` on another quantizer's checkpoint, which requantizes it; or use --backend "
        "vulkan"
    ),
}


def _kernel(linear: nn.Module, options: ExportOptions) -> str | None:
    """The kernel that computes `linear` as stored, or None."""
    is_int4 = isinstance(linear, Int8DynActInt4WeightLinear)
    if is_int4 and options.backend == "xnnpack" and linear.groupsize not in XNNPACK_GROUP_SIZES:
        return None
    return _KERNELS.get((options.backend, type(linear)))


@dataclass(frozen=True)
class LinearRow:
    """One linear: its `kernel`, and whether that is a `fallback` on a dequantized weight."""

    name: str
    kernel: str
    out_features: int
    in_features: int
    group_size: int | None
    fallback: bool = False


def assign_kernels(backbone: nn.Module, options: ExportOptions) -> list[LinearRow]:
    """A row for each linear of `backbone`, in module order.

    Raises `InputError` naming the linears that no kernel computes as stored, and why, unless
    `options.allow_fallback`.
    """
    rows: list[LinearRow] = []
    unsupported: list[tuple[str, nn.Module]] = []
    for name, module in backbone.named_modules():
        if isinstance(module, Int4Linear | Int8DynActInt8WeightLinear | nn.Linear):
            kernel = _kernel(module, options)
            if kernel is None:
                unsupported.append((name, module))
            rows.append(
                LinearRow(
                    name,
                    kernel or _KERNELS[options.backend, nn.Linear],
                    module.out_features,
                    module.in_features,
                    module.groupsize if isinstance(module, Int4Linear) else None,
                    fallback=kernel is None,
                )
            )
    if unsupported and not options.allow_fallback:
        raise _refusal(unsupported, options)
    return rows


def _refusal(unsupported: list[tuple[str, nn.Module]], options: ExportOptions) -> InputError:
    """The error for the linears `unsupported`, which are all of one kind."""
    names, first = and_more([name for name, _ in unsupported]), unsupported[0][1]
    bits = 4 if isinstance(first, Int4Linear) else 8
    times = (16 if options.activation_dtype == "fp16" else 32) // bits
    return InputError(
        f"{names}: {_WHY_NOT[options.backend, type(first)]}. --allow-fallback runs it "
        f"dequantized, in floating point, at about {times} times the size."
    )


def dequantize_fallbacks(backbone: nn.Module, rows: list[LinearRow]) -> None:
    """Replace, in place, each linear that is a fallback in `rows` by a floating-point linear."""
    for row in rows:
        if row.fallback:
            quantized = backbone.get_submodule(row.name)
            assert isinstance(quantized, Int4Linear | Int8DynActInt8WeightLinear)
            backbone.set_submodule(row.name, dequantized(quantized))


def dequantized(quantized: Int4Linear | Int8DynActInt8WeightLinear) -> nn.Linear:
    """The floating-point linear that replaces `quantized`."""
    bias = getattr(quantized, "bias", None)
    linear = nn.Linear(1, 1, bias=bias is not None, device="meta")
    linear.in_features, linear.out_features = quantized.in_features, quantized.out_features
    linear.weight = nn.Parameter(quantized.dequantized_weight(), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear
