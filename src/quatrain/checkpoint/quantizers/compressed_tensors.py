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
    rows, words = int32_matrix(parts["weight_packed"], f"{name}.weight_packed", source)
    columns = words * 8
    scale = parts["weight_scale"]
    groups = scale.shape[1] if len(scale.shape) == 2 else 0
    if not groups or columns % groups:
        raise InputError(
            f"{source}: {name}.weight_scale has shape {list(scale.shape)} for a weight of "
            f"{[rows, columns]}"
        )
    expect_shape(scale, (rows, groups), f"{name}.weight_scale", source, floating=True)
    zero_point, group_of = parts.get("weight_zero_point"), parts.get("weight_g_idx")
    if zero_point is not None:
        expect_shape(zero_point, (-(-rows // 8), groups), f"{name}.weight_zero_point", source)
        int32_matrix(zero_point, f"{name}.weight_zero_point", source)
    if group_of is not None:
        expect_shape(group_of, (columns,), f"{name}.weight_g_idx", source)

    def values() -> torch.Tensor:
        stated = parts["weight_shape"].load().tolist() if "weight_shape" in parts else None
        if stated not in (None, [rows, columns]):
            raise InputError(
                f"{source}: {name}.weight_shape says {stated}, its words hold {[rows, columns]}"
            )
        return unpack_columns(parts["weight_packed"].load())

    def zeros() -> torch.Tensor:
        assert zero_point is not None
        return unpack_columns(zero_point.load().t())[:, :rows].t().contiguous()

    def groups_of_columns() -> torch.Tensor:
        assert group_of is not None
        found = group_of.load().long()
        if int(found.min()) < 0 or int(found.max()) >= groups:
            raise InputError(f"{source}: {name}.weight_g_idx names a group outside the file's")
        return found

    return GroupedLinear(
        shape=(rows, columns),
        groups=groups,
        scales_dtype=scale.dtype,
        values=values,
        scales=scale.load,
        zeros=zeros if zero_point is not None else None,
        group_of=groups_of_columns if group_of is not None else None,
    )


COMPRESSED_TENSORS = Quantizer(
    name="compressed-tensors",
    required=("weight_packed", "weight_scale"),
    optional=("weight_shape", "weight_zero_point", "weight_g_idx"),
    check=_check,
    read=_read,
)
