"""Reads linears in compressed-tensors' "pack-quantized" format, as llm-compressor writes W4A16.

For a linear F with weight [N, K] and G groups:
F.weight_packed     int32 [N, K/8]   eight input features a word, the first in the low bits, + 8
F.weight_scale      float [N, G]
F.weight_shape      int64 [2]        N and K
F.weight_zero_point int32 [N/8, G]   asymmetric files only: eight output features a word, + 8
F.weight_g_idx      int32 [K]        act-order files only
"""

from collections.abc import Mapping

import torch

from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear
from quatrain.checkpoint.quantizers.groups import group_indices, groups_of_rows
from quatrain.checkpoint.quantizers.int32_packing import expect_shape, int32_matrix, unpack_columns
from quatrain.checkpoint.quantizers.quantizer import Parts, Quantizer, Settings
from quatrain.errors import InputError


def _check(settings: Settings, metadata: Mapping[str, str], source: str) -> None:
    """`W4A16` alone: activations that were quantized in calibration would be lost in silence."""
    if settings.get("format") != "pack-quantized":
        raise InputError(
            f"{source}: its compressed-tensors format is {settings.get('format')!r}, "
            "expected 'pack-quantized'"
        )
    groups = settings.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise InputError(f"{source}: its quantization_config has no 'config_groups'")
    for name, group in groups.items():
        weights = group.get("weights") if isinstance(group, dict) else None
        if not isinstance(weights, dict) or weights.get("num_bits") != 4:
            raise InputError(
                f"{source}: its compressed-tensors group {name!r} has weights {weights!r}, "
                "expected 4-bit integers"
            )
        if weights.get("type", "int") != "int" or group.get("input_activations"):
            raise InputError(
                f"{source}: its compressed-tensors group {name!r} is not W4A16 with int weights"
            )


def _read(parts: Parts, settings: Settings, name: str, source: str) -> GroupedLinear:
    packed, scale = parts["weight_packed"], parts["weight_scale"]
    rows, words = int32_matrix(packed, f"{name}.weight_packed", source)
    shape = rows, words * 8
    groups = groups_of_rows(scale, shape, f"{name}.weight_scale", source)
    zero_point = parts.get("weight_zero_point")
    if zero_point is not None:
        expect_shape(zero_point, (-(-rows // 8), groups), f"{name}.weight_zero_point", source)
        int32_matrix(zero_point, f"{name}.weight_zero_point", source)

    def values() -> torch.Tensor:
        stated = parts["weight_shape"].load().tolist() if "weight_shape" in parts else None
        if stated not in (None, list(shape)):
            raise InputError(
                f"{source}: {name}.weight_shape says {stated}, its words hold {list(shape)}"
            )
        return unpack_columns(packed.load())

    def zeros() -> torch.Tensor:
        assert zero_point is not None
        return unpack_columns(zero_point.load().t())[:, :rows].t().contiguous()

    return GroupedLinear(
        shape=shape,
        groups=groups,
        scales_dtype=scale.dtype,
        values=values,
        scales=scale.load,
        zeros=zeros if zero_point is not None else None,
        group_of=group_indices(
            parts.get("weight_g_idx"), shape[1], groups, f"{name}.weight_g_idx", source
        ),
    )


COMPRESSED_TENSORS = Quantizer(
    name="compressed-tensors",
    required=("weight_packed", "weight_scale"),
    optional=("weight_shape", "weight_zero_point", "weight_g_idx"),
    check=_check,
    read=_read,
)
