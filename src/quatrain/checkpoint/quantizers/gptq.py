"""Reads GPTQ linears as AutoGPTQ and GPTQModel write them (Frantar et al., 2022).

For a linear F with weight [N, K] of b bits and G groups, n = 32 / b numbers a word (of 3 bits one
after the other, 32 in 3 words; in the format "gptq_p" 32 in b words, a plane of bits each):
F.qweight int32 [K/n, N]   n input features a word, the first in the low bits
F.qzeros  int32 [G, N/n]   n output features a word; format "gptq" stores zero - 1 (the
                           AutoGPTQ kernels add it), "gptq_v2" and "gptq_p" (GPTQModel) the
                           zero itself
F.scales  float [G, N]
F.g_idx   int32 [K]        the group of each input feature
weight = scale * (number - zero), the numbers 0 to 2^b - 1; symmetric files have every zero in
their middle. A file's linears may differ in bits (GPTQModel's `dynamic`): their shapes tell.
"""

from collections.abc import Callable

import torch

from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear
from quatrain.checkpoint.quantizers.groups import (
    check_stated_size,
    group_indices,
    groups_of_transposed,
)
from quatrain.checkpoint.quantizers.int32_packing import unpack_planes, unpack_words
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.checkpoint.quantizers.quantizer import Quantizer, Settings
from quatrain.checkpoint.quantizers.rotated import refuse_rotated
from quatrain.errors import InputError

_BITS = (4, 8, 2, 3)
_FORMATS, _IN_PLANES = ("gptq", "gptq_v2", "gptq_p"), "gptq_p"  # the last of these has more bits


def _check(settings: Settings, source: str) -> None:
    if format_of(settings) not in _FORMATS:
        raise InputError(
            f"{source}: its GPTQ format is {format_of(settings)!r}, expected 'gptq', 'gptq_v2' or "
            "'gptq_p': other formats are packed for one kernel; use the file that it was packed "
            "from"
        )
    if settings.get("bits") not in _bits_of(settings):
        raise InputError(
            f"{source}: its quantization_config has bits {settings.get('bits')!r}, expected "
            f"{_listed(settings)}; quantize the original model"
        )
    refuse_rotated(settings, source)


def _bits_of(settings: Settings) -> tuple[int, ...]:
    """Those that a number may have in the format of `settings`."""
    return (*_BITS, 5, 6, 7) if format_of(settings) == _IN_PLANES else _BITS


def _listed(settings: Settings) -> str:
    *most, last = map(str, _bits_of(settings))
    return f"{', '.join(most)} or {last}"


def _read(parts: Parts, settings: Settings) -> GroupedLinear:
    words, rows = parts.words("qweight")
    bits, in_planes = _bits(parts, rows, settings), format_of(settings) == _IN_PLANES
    shape = rows, words * 32 // bits
    if words % bits if in_planes else words * 32 % bits:
        raise InputError(
            f"{parts.called('qweight')} has {words} rows of words, expected a multiple of {bits} "
            f"for {bits}-bit numbers; download it again"
        )
    if in_planes and rows % 32:
        raise InputError(
            f"{parts.called('qzeros')} holds {rows} zero points a group, expected a multiple of 32 "
            "in the format 'gptq_p'; correct the format (checkpoint_format), or download it again"
        )
    groups = groups_of_transposed(parts, shape, bits)
    if not settings.get("dynamic") and "g_idx" not in parts:  # which say it of each linear
        check_stated_size(settings.get("group_size"), shape, groups, parts)
    if settings.get("desc_act") is True and "g_idx" not in parts and groups > 1:
        raise InputError(
            f"{parts.called('g_idx')} is missing, although its settings have desc_act: true; "
            "download the model's missing files, or quantize the original model"
        )

    def values() -> torch.Tensor:
        # [K/n, N] words -> [N, K/n] -> [N, K]
        return _unpack(settings)(parts["qweight"].load().t(), bits, shape[1])

    return GroupedLinear(
        shape=shape,
        groups=groups,
        scales_dtype=parts["scales"].dtype,
        values=values,
        scales=lambda: parts["scales"].load().t().contiguous(),
        zeros=lambda: _zero_points(parts, rows, bits, settings),
        group_of=group_indices(parts, "g_idx", shape[1], groups),
        bits=bits,
    )


def _unpack(settings: Settings) -> Callable[[torch.Tensor, int, int], torch.Tensor]:
    return unpack_planes if format_of(settings) == _IN_PLANES else unpack_words


def _zero_points(parts: Parts, rows: int, bits: int, settings: Settings) -> torch.Tensor:
    """int8 [N, G], of N `rows`; the format gptq stores them minus 1."""
    stored, one_less = parts["qzeros"].load(), format_of(settings) == "gptq"  # [G, N/n]
    if one_less and 32 % bits == 0:
        # In all numbers of a word at once, as GPTQModel subtracted it.
        stored = stored + sum(1 << shift for shift in range(0, 32, bits))
    found = _unpack(settings)(stored, bits, rows).t().contiguous()
    if one_less and 32 % bits:
        middle = 1 << (bits - 1)
        found = (found + middle + 1 & 2 * middle - 1) - middle
    _check_format(found, settings, parts)
    return found


def _bits(parts: Parts, rows: int, settings: Settings) -> int:
    """Of a number, by how many of the zero points of N rows share a word."""
    qzeros = parts["qzeros"]
    words = qzeros.shape[1] if len(qzeros.shape) == 2 else 0
    for bits in _bits_of(settings):
        if words * 32 == rows * bits:
            return bits
    raise InputError(
        f"{parts.called('qzeros')} has shape {list(qzeros.shape)} for {rows} output features, "
        f"expected {rows * 4 // 32} words of 4-bit numbers, or those of 8, 2 or 3 bits"
    )


def _check_format(zeros: torch.Tensor, settings: Settings, parts: Parts) -> None:
    """The two formats are one apart: where all of a symmetric linear's zero points are beside their
    middle, the file states the other one."""
    beside = 1 if format_of(settings) == "gptq" else -1
    if settings.get("sym") is True and bool((zeros == beside).all()):
        where, other = ("above", "gptq_v2") if beside == 1 else ("below", "gptq")
        raise InputError(
            f"{parts.source}: all zero points of {parts.name} are one {where} the middle, "
            "although its settings say that it is symmetric: they are stored in the format "
            f"{other!r}, not {format_of(settings)!r}; correct the format in its settings "
            "(checkpoint_format, or AutoRound's packing_format)"
        )


def format_of(settings: Settings) -> object:
    """In which of its formats `settings` say that a file is."""
    return settings.get("checkpoint_format") or settings.get("format") or "gptq"


GPTQ = Quantizer(
    name="gptq",
    required=("qweight", "qzeros", "scales"),
    optional=("g_idx",),
    check=_check,
    read=_read,
    embedding_by_columns=True,
)
