"""Reads AWQ linears in the "gemm" version that AutoAWQ writes (Lin et al., 2023).

For a linear F with weight [N, K] and G groups:
F.qweight int32 [K, N/8]   eight output features a word, in the order below
F.qzeros  int32 [G, N/8]   the same packing
F.scales  float [G, N]
weight = scale * (number - zero), the numbers 0 to 15; symmetric files have every zero at 8.
"""

import torch

from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear
from quatrain.checkpoint.quantizers.groups import check_stated_size, groups_of_transposed
from quatrain.checkpoint.quantizers.int32_packing import unpack_columns
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.checkpoint.quantizers.quantizer import Quantizer, Settings
from quatrain.checkpoint.quantizers.rotated import refuse_rotated
from quatrain.errors import InputError

_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the feature in each nibble, lowest first


def _check(settings: Settings, source: str) -> None:
    bits = settings.get("bits") or settings.get("w_bit")
    named = (settings.get(name) for name in ("version", "checkpoint_format", "format"))
    version = str(next(filter(None, named), "gemm")).lower()
    if bits != 4 or version != "gemm":
        raise InputError(
            f"{source}: its quantization_config has bits {bits!r} and version {version!r}, "
            "expected 4 and 'gemm'; quantize the original model"
        )
    refuse_rotated(settings, source)


def _read(parts: Parts, settings: Settings) -> GroupedLinear:
    columns, words = parts.words("qweight")
    shape = words * 8, columns
    groups = groups_of_transposed(parts, shape)
    size = settings.get("group_size", settings.get("q_group_size"))
    check_stated_size(size, shape, groups, parts)
    return GroupedLinear(
        shape=shape,
        groups=groups,
        scales_dtype=parts["scales"].dtype,
        values=lambda: _transposed(parts["qweight"]),
        scales=lambda: parts["scales"].load().t().contiguous(),
        zeros=lambda: _transposed(parts["qzeros"]),
    )


def _transposed(stored: StoredTensor) -> torch.Tensor:
    """int32 [R, N/8] to int8 [N, R]."""
    return unpack_columns(stored.load(), _ORDER).t().contiguous()


AWQ = Quantizer(
    name="awq",
    required=("qweight", "qzeros", "scales"),
    check=_check,
    read=_read,
)
