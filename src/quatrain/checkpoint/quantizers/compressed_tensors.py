"""Reads linears that compressed-tensors wrote, as llm-compressor makes W4A16, W4A8 and W4AFP8.

Format "pack-quantized", for a linear F with weight [N, K] of b bits in G groups, n = 32 // b, or of
newer releases 32 / b, numbers that words cut:
F.weight_packed     int32 [N, K/n]   n input features a word, the first in the low bits, + 2^(b-1)
F.weight_shape      int64 [2]        N and K
F.weight_zero_point int32 [N/n, G]   asymmetric files only: n output features a word, + 2^(b-1);
                                     of older releases int8 [N, G]
Format "int-quantized" (or "naive-quantized"):
F.weight            int8 [N, K]
F.weight_zero_point int8 [N, G]      asymmetric files only
Both:
F.weight_scale      float [N, G], or fewer rows (strategy "block"), or one number ("tensor")
F.weight_g_idx      int32 [K]        act-order files only
F.input_scale, F.input_zero_point    of activations, from calibration: not read

`config_groups` say the bits of each linear, by its name, a pattern or its class, and how its
activations are quantized: not at all, or as it runs, to int8 per token, which is 8da4w, or to
others or by calibrated scales, for which 8da4w is taken too, as a note says. Linears of a group in
floating point (FP8, FP4) are not among those that are read here (`hugging_face.float8`).
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

from quatrain.checkpoint.files.lazy_tensors import StoredTensor
from quatrain.checkpoint.quantizers.compressed_groups import (
    check_activations,
    is_floating,
    is_of_activations,
)
from quatrain.checkpoint.quantizers.grouped_linear import GroupedLinear
from quatrain.checkpoint.quantizers.groups import check_stated_size, group_indices, groups_of_rows
from quatrain.checkpoint.quantizers.int32_packing import unpack_words, word_counts
from quatrain.checkpoint.quantizers.parts import Parts
from quatrain.checkpoint.quantizers.quantizer import Quantizer, Settings
from quatrain.checkpoint.quantizers.rotated import refuse_transformed
from quatrain.errors import InputError

_FORMATS = ("pack-quantized", "int-quantized", "naive-quantized")
_AGAIN = "quantize the original model"


def _check(settings: Settings, source: str) -> None:
    """Outputs that were quantized in calibration would be lost in silence."""
    groups = settings.get("config_groups")
    if not isinstance(groups, dict) or all(map(is_of_activations, groups.values())):
        raise InputError(
            f"{source}: its quantization_config has no 'config_groups' of weights; {_AGAIN}"
        )
    for name, group in groups.items():
        if not isinstance(group, dict):
            raise InputError(
                f"{source}: its compressed-tensors group {name!r} is {str(group)[:100]}, expected "
                f"an object that says how its weights were quantized; {_AGAIN}"
            )
        if is_floating(group, settings.get("format")) or is_of_activations(group):
            continue
        form = group.get("format") or settings.get("format")
        if form not in _FORMATS:
            raise InputError(
                f"{source}: its compressed-tensors format is {form!r}, expected "
                f"{', '.join(map(repr, _FORMATS))}; {_AGAIN}"
            )
        _check_group(name, group, source)
    refuse_transformed(settings, source)


def _check_group(name: str, group: Mapping[str, Any], source: str) -> None:
    targets = group.get("targets")
    if targets is not None and not isinstance(targets, list):
        raise InputError(
            f"{source}: its compressed-tensors group {name!r} has targets {str(targets)[:100]}, "
            "expected a list of modules, patterns or classes; use the config.json that was "
            "written with the model"
        )
    weights = group.get("weights")
    bits = weights.get("num_bits") if isinstance(weights, dict) else None
    if not isinstance(weights, dict) or type(bits) is not int or not 2 <= bits <= 8:
        raise InputError(
            f"{source}: its compressed-tensors group {name!r} has weights {weights!r}, "
            f"expected integers of 2 to 8 bits; {_AGAIN}"
        )
    if weights.get("type", "int") != "int":
        raise InputError(
            f"{source}: its compressed-tensors group {name!r} has weights of type "
            f"{weights['type']!r}, expected 'int'; {_AGAIN}"
        )
    check_activations(name, group, source)


def _read(parts: Parts, settings: Settings) -> GroupedLinear:
    stated = _weights(settings, parts.name, parts.source)
    _check_parts(parts, stated)
    bits = stated["num_bits"]
    if "weight_packed" in parts:
        rows, words = parts.words("weight_packed")
        columns = _packed_columns(parts, words, bits)
    else:
        rows, columns = _int8_matrix(parts)
    scale, zeros = parts["weight_scale"], parts.get("weight_zero_point")
    if stated.get("strategy") in ("tensor", "block"):
        scale = _of_rows(scale, rows)
        zeros = _of_rows(zeros, rows) if zeros is not None and zeros.dtype == torch.int8 else zeros
    groups = groups_of_rows(parts, "weight_scale", (rows, columns), scale)
    if stated.get("strategy") in ("group", None):
        check_stated_size(stated.get("group_size"), (rows, columns), groups, parts)
    _check_shape(parts, (rows, columns), bits)
    if zeros is not None and zeros.dtype == torch.int8:
        parts.expect_shape("weight_zero_point", (rows, groups), of=zeros)
    elif zeros is not None:
        parts.words("weight_zero_point")
        rows_of_zeros = zeros.shape[0] if zeros.shape[0] in word_counts(rows, bits) else 0
        parts.expect_shape(
            "weight_zero_point", (rows_of_zeros or word_counts(rows, bits)[0], groups)
        )
    return GroupedLinear(
        shape=(rows, columns),
        groups=groups,
        scales_dtype=scale.dtype,
        values=lambda: _values(parts, bits, columns),
        scales=scale.load,
        zeros=None if zeros is None else lambda: _zeros(zeros, rows, bits),
        group_of=group_indices(parts, "weight_g_idx", columns, groups, none=-1),
        bits=bits,
    )


def _packed_columns(parts: Parts, words: int, bits: int) -> int:
    """K of a weight with that many `words` a row; it is stated if the numbers do not fill the
    words."""
    if 32 % bits == 0:
        return words * (32 // bits)
    stated = parts["weight_shape"].load().tolist() if "weight_shape" in parts else None
    columns = stated[1] if isinstance(stated, list) and len(stated) == 2 else 0
    if columns < 1 or words not in word_counts(columns, bits):
        raise InputError(
            f"{parts.called('weight_shape')} is {stated}, but its rows of {words} words do not "
            f"hold such a row of {bits}-bit numbers, as its group says; {_AGAIN}"
        )
    return columns


def _of_rows(few: StoredTensor, rows: int) -> StoredTensor:
    """The scales or zero points `few` with a row for each of the weight's, where several share
    one."""
    shape = (*few.shape, 1, 1)[:2]
    if len(few.shape) > 2 or not shape[0] or shape[0] == rows or rows % shape[0]:
        return few
    return few.changed(
        lambda stored: stored.reshape(shape).repeat_interleave(rows // shape[0], 0),
        (rows, shape[1]),
    )


def _check_parts(parts: Parts, stated: Mapping[str, Any]) -> None:
    """Refuse a linear without a tensor that its group `stated` tells of: it would be taken for a
    symmetric one, or one in order."""
    asymmetric = stated.get("symmetric", True) is False
    act_order = stated.get("actorder") in (True, "group", "dynamic")
    for part, told, how in (
        ("weight_zero_point", asymmetric, "symmetric: false"),
        ("weight_g_idx", act_order, f"actorder: {stated.get('actorder')}"),
    ):
        if told and part not in parts:
            raise InputError(
                f"{parts.called(part)} is missing, although its group says {how}; download the "
                "model's missing files, or quantize the original model"
            )


def _check_shape(parts: Parts, shape: tuple[int, int], bits: int) -> None:
    stated = parts["weight_shape"].load().tolist() if "weight_shape" in parts else None
    if stated not in (None, list(shape)):
        raise InputError(
            f"{parts.called('weight_shape')} is {stated}, but its words hold {list(shape)} "
            f"numbers of {bits} bits, as its group says; {_AGAIN}"
        )


def _values(parts: Parts, bits: int, columns: int) -> torch.Tensor:
    if "weight_packed" not in parts:
        return parts["weight"].load()
    return unpack_words(parts["weight_packed"].load(), bits, columns)


def _zeros(zeros: StoredTensor, rows: int, bits: int) -> torch.Tensor:
    stored = zeros.load()
    if stored.dtype == torch.int8:
        return stored
    return unpack_words(stored.t(), bits, rows).t().contiguous()


def _int8_matrix(parts: Parts) -> tuple[int, int]:
    expected = f"an int8 matrix, or {parts.name}.weight_packed"
    if "weight" not in parts:
        raise InputError(f"{parts.called('weight')} is missing, expected {expected}")
    return parts.matrix("weight", torch.int8, expected)


def _weights(settings: Settings, name: str, source: str) -> Mapping[str, Any]:
    """The settings for weights of the group that `name` belongs to, in the order of
    compressed-tensors' own `match_targets`: a group that names it, a pattern that matches it, its
    class, or another class, which its class may be derived from."""
    form, of_all = settings.get("format"), settings["config_groups"].values()
    groups = [one for one in of_all if not is_floating(one, form) and not is_of_activations(one)]
    weights = {
        str(target): group["weights"] for group in groups for target in group.get("targets") or ()
    }
    patterns = sorted(target for target in weights if target.startswith("re:"))
    matching = [name, *(one for one in patterns if _matches(one[3:], name, source))]
    own_class = "Embedding" if name.endswith("embed_tokens") else "Linear"
    classes = [one for one in weights if "." not in one and one not in patterns]
    stated = next((one for one in (*matching, own_class, *classes) if one in weights), None)
    return weights[stated] if stated else groups[0]["weights"]


def _matches(pattern: str, name: str, source: str) -> bool:
    try:
        return re.match(pattern, name) is not None
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(
            f"{source}: its target 're:{pattern[:100]}' is not a valid pattern: {error}"
        ) from error


COMPRESSED_TENSORS = Quantizer(
    name="compressed-tensors",
    required=("weight_scale",),
    optional=(
        "weight_packed",
        "weight",
        "weight_shape",
        "weight_zero_point",
        "weight_g_idx",
        "input_scale",
        "input_zero_point",
    ),
    check=_check,
    read=_read,
)
