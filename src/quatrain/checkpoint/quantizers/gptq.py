"""Reads GPTQ linears as AutoGPTQ and GPTQModel write them (Frantar et al., 2022).

For a linear F with weight [N, K] and G groups:
F.qweight int32 [K/8, N]   eight input features a word, the first in the low bits
F.qzeros  int32 [G, N/8]   eight output features a word; format "gptq" stores zero - 1 (the
                           AutoGPTQ kernels add it), "gptq_v2" (GPTQModel) the zero itself
F.scales  float [G, N]
F.g_idx   int32 [K]        the group of each input feature
weight = scale * (number - zero), the numbers 0 to 15; symmetric files have every zero at 8.
"""

from collections.abc import Mapping

import torch

from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear
from quatrain.checkpoint.quantizers.groups import group_indices, groups_of_transposed
from quatrain.checkpoint.quantizers.int32_packing import int32_matrix, unpack_columns
from quatrain.checkpoint.quantizers.quantizer import Parts, Quantizer, Settings
from quatrain.errors import InputError

_ONES = 0x11111111


def _check(settings: Settings, metadata: Mapping[str, str], source: str) -> None:
    if settings.get("bits") != 4:
        raise InputError(
            f"{source}: its quantization_config has bits {settings.get('bits')!r}, expected 4"
        )
    if _format(settings) not in ("gptq", "gptq_v2"):
        raise InputError(
            f"{source}: its GPTQ format is {_format(settings)!r}, expected 'gptq' or 'gptq_v2'"
        )


def _read(parts: Parts, settings: Settings, name: str, source: str) -> GroupedLinear:
    words, rows = int32_matrix(parts["qweight"], f"{name}.qweight", source)
    shape = rows, words * 8
    groups = groups_of_transposed(parts, shape, name, source)

    def values() -> torch.Tensor:
        # [K/8, N] words -> [N, K/8] -> [N, K]
        return unpack_columns(parts["qweight"].load().t())

    def zeros() -> torch.Tensor:
        words = parts["qzeros"].load()  # [G, N/8]
        if _format(settings) == "gptq":
            words = words + _ONES  # all eight at once, as GPTQModel took it away
        return unpack_columns(words).t().contiguous()

    return GroupedLinear(
        shape=shape,
        groups=groups,
        scales_dtype=parts["scales"].dtype,
        values=values,
        scales=lambda: parts["scales"].load().t().contiguous(),
        zeros=zeros,
        group_of=group_indices(parts.get("g_idx"), shape[1], groups, f"{name}.g_idx", source),
    )


def _format(settings: Settings) -> object:
    return settings.get("checkpoint_format", settings.get("format", "gptq"))


GPTQ = Quantizer(
    name="gptq",
    required=("qweight", "qzeros", "scales"),
    optional=("g_idx",),
    check=_check,
    read=_read,
)
