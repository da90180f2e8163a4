"""Reads Google's Gemma 4 for phones (QAT): 2, 4 and 8 bits with one scale per row.

For a linear F [N, K]:
F.weight        uint8 [N, K * b / 8]   2 or 4 bits, the first in the low ones; int8 [N, K] for 8
F.weight_scale  float [N, 1]
For an embedding F [N, K]: F.embedding_quantized likewise, F.embedding_scale float [N, G].
weight = scale * (number - 2^(b - 1)), of 8 bits scale * number.

config.json's `quantization_config` states num_bits, and exceptions by patterns for modules.
"""

import re

import torch

from quatrain.checkpoint.files.lazy_tensors import dtype_name
from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear
from quatrain.checkpoint.quantizers.groups import groups_of_rows
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.checkpoint.quantizers.quantizer import Quantizer, Settings
from quatrain.errors import InputError

_AGAIN = "use the config.json that was written with the model"
_NAMES = (("weight", "weight_scale"), ("embedding_quantized", "embedding_scale"))


def _check(settings: Settings, source: str) -> None:
    by_module = settings.get("module_quant_configs")
    if by_module is not None and not isinstance(by_module, dict):
        raise InputError(
            f"{source}: its module_quant_configs is {str(by_module)[:100]}, expected an object of "
            f"settings by patterns; {_AGAIN}"
        )


def _read(parts: Parts, settings: Settings) -> GroupedLinear:
    part, scale = _weight_and_scale(parts)
    weight, bits = parts[part], _bits(settings, parts.name, parts.source)
    dtype = torch.int8 if bits == 8 else torch.uint8
    expected = (
        f"a matrix of {dtype_name(dtype)}, as its quantization_config says {bits} bits; {_AGAIN}"
    )
    rows, octets = parts.matrix(part, dtype, expected)
    shape = rows, octets * 8 // bits
    return GroupedLinear(
        shape=shape,
        groups=groups_of_rows(parts, scale, shape),
        scales_dtype=parts[scale].dtype,
        values=lambda: _numbers(weight.load(), bits),
        scales=parts[scale].load,
        bits=bits,
    )


def _weight_and_scale(parts: Parts) -> tuple[str, str]:
    """What the two tensors of the matrix are called."""
    for weight, scale in _NAMES:
        if weight in parts and scale in parts:
            return weight, scale
    raise InputError(
        f"{parts.source}: {parts.name} has only {', '.join(parts)}, expected a weight and its "
        "scale; download the model's missing files"
    )


def _bits(settings: Settings, name: str, source: str) -> int:
    """Those of the pattern that finds something the furthest to the left in `name`, else of all."""
    of_all = settings.get("num_bits", 4)
    stated: object = of_all
    furthest = len(name) + 1
    for pattern, own in (settings.get("module_quant_configs") or {}).items():
        try:
            found = re.search(pattern, name)
        except (re.error, RecursionError, OverflowError) as error:
            raise InputError(
                f"{source}: its module_quant_configs has {pattern[:100]!r}, which is not a valid "
                f"pattern: {error}; {_AGAIN}"
            ) from error
        if found and found.start() < furthest:
            furthest = found.start()
            stated = own.get("num_bits", of_all) if isinstance(own, dict) else own
    if isinstance(stated, bool) or stated not in (2, 4, 8) or not isinstance(stated, int):
        raise InputError(
            f"{source}: its quantization_config has num_bits {stated!r} for {name}, expected 2, 4 "
            f"or 8; {_AGAIN}"
        )
    return stated


def _numbers(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 [N, K * bits / 8] to int8 [N, K]; 8-bit numbers are unchanged."""
    if bits == 8:
        return packed
    middle, mask = 1 << (bits - 1), (1 << bits) - 1
    values = torch.empty((*packed.shape, 8 // bits), dtype=torch.int8)
    for place in range(8 // bits):
        values[..., place] = (packed >> (bits * place) & mask).to(torch.int8) - middle
    return values.flatten(1)


GEMMA_MOBILE = Quantizer(
    name="gemma",
    required=(),
    optional=tuple(name for names in _NAMES for name in names),
    check=_check,
    read=_read,
)
