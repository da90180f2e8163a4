"""Which kernel each linear of a backbone becomes, decided before anything is lowered."""

from dataclasses import dataclass

from torch import nn

from quatrain.errors import InputError
from quatrain.export.options import ExportOptions
from quatrain.linear import (
    Int8DynActInt4WeightLinear,
    Int8DynActInt8WeightLinear,
    WeightOnlyInt4Linear,
)
from quatrain.linear.int4 import Int4Linear

# (backend, what the checkpoint holds) -> the kernel that computes it.
_KERNELS: dict[tuple[str, type[nn.Module]], str] = {
    ("vulkan", Int8DynActInt4WeightLinear): "et_vk.linear_dq8ca_q4gsw",
    ("vulkan", WeightOnlyInt4Linear): "et_vk.linear_q4gsw",
    ("vulkan", nn.Linear): "aten.linear",
    ("xnnpack", Int8DynActInt4WeightLinear): "xnnpack.qd8_f32_qb4w",
    ("xnnpack", Int8DynActInt8WeightLinear): "xnnpack.qd8_f32_qc8w",
    ("xnnpack", nn.Linear): "xnnpack.f32",
}

_WHY_NOT = {
    ("vulkan", Int8DynActInt8WeightLinear): (
        "ExecuTorch's Vulkan delegate has no kernel for an int8 per-channel weight with dynamic "
        "activations; quantize with --output-layer int4"
    ),
    ("xnnpack", WeightOnlyInt4Linear): (
        "XNNPACK in ExecuTorch has no int4 group-wise kernel for floating-point activations; "
        "export 8da4w, or use --backend vulkan"
    ),
}


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
    rows, stuck = [], []
    for name, module in backbone.named_modules():
        if isinstance(module, Int4Linear | Int8DynActInt8WeightLinear | nn.Linear):
            place = (options.backend, type(module))
            kernel = _KERNELS.get(place)
            if kernel is None:
                stuck.append((name, _WHY_NOT[place]))
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
    if stuck and not options.allow_fallback:
        name, reason = stuck[0]
        more = f" and {len(stuck) - 1} more" if len(stuck) > 1 else ""
        raise InputError(
            f"{name}{more}: {reason}. --allow-fallback runs it dequantized, in floating point, "
            "at about eight times the bytes."
        )
    return rows


def dequantize_fallbacks(backbone: nn.Module, rows: list[LinearRow]) -> None:
    """Put a floating-point linear, in place, where `rows` says that one must stand in."""
    for row in rows:
        if row.fallback:
            quantized = backbone.get_submodule(row.name)
            assert isinstance(quantized, Int4Linear | Int8DynActInt8WeightLinear)
            bias = getattr(quantized, "bias", None)
            linear = nn.Linear(1, 1, bias=bias is not None, device="meta")
            linear.in_features, linear.out_features = row.in_features, row.out_features
            linear.weight = nn.Parameter(quantized.dequantized_weight(), requires_grad=False)
            if bias is not None:
                linear.bias = nn.Parameter(bias, requires_grad=False)
            parent, _, attribute = row.name.rpartition(".")
            setattr(backbone.get_submodule(parent), attribute, linear)
