"""Dequantizes matrices in FP8, FP4, bitsandbytes' and HQQ's formats: each number times its scale.

| quant_method | scales of F.weight, float8 [N, K] |
|---|---|
| `fp8` (DeepSeek, Qwen, Ministral 3), `mxfp8` | F.weight_scale_inv, of blocks, or one |
| `fp8` of GPTQModel (`weight_scale_semantics` `inverse`) | the same or [N], to be divided by |
| `compressed-tensors`, 8 bits of type float | F.weight_scale, one, [N, 1] or of blocks |
| `fbgemm_fp8` | F.weight_scale [N, 1]; of Llama 4's experts F_scale [E, 1, N] or [E, N, 1] |
| `modelopt`, quant_algo `FP8`, `MXFP8`, `fp8_pb_wo` | F.weight_scale, one, [N], or of blocks |
| `quark`, weights in `fp8_e4m3` or `fp8_e5m2` | F.weight_scale, one or [N] |
| `auto-round`, data_type `fp`, `mx_fp` | the same |
| `torchao`, its `Float8Tensor` | F._weight_scale, one, [N, 1] or of blocks; of F._weight_qdata |
| none stated, as modelopt's first files | as those, where there are scales |

FP4 is read as FP8 first (`float4`), what bitsandbytes and HQQ rounded by itself (`bitsandbytes`,
`hqq`). Scales of blocks may be powers of 2 in 8 bits (`scale_fmt` `ue8m0`), as a type of their own
or as uint8. Those of activations beside them say how a runtime would round those, and change no
weight; but ModelOpt's F.pre_quant_scale [K] is what inputs are multiplied by.
"""

import math
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, MadeByRows, StoredTensor
from quatrain.checkpoint.hugging_face.tensors.bitsandbytes import BITSANDBYTES, in_float32
from quatrain.checkpoint.hugging_face.tensors.float4 import as_float8, factors_of
from quatrain.checkpoint.hugging_face.tensors.hqq import HQQ, has_hqq, without_hqq
from quatrain.checkpoint.quantizers.mlx import MLX, without_affine
from quatrain.checkpoint.quantizers.modelopt import OF_INPUTS, with_inputs_scaled
from quatrain.checkpoint.quantizers.read import method_of
from quatrain.checkpoint.quantizers.rotated import refuse_rotated, refuse_transformed
from quatrain.errors import InputError

_FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_SCALES = ("_scale_inv", "_scale")  # behind the weight's own name
_OF_ACTIVATIONS = re.compile(
    r".*\.(?:input_scale|input_global_scale|activation_scale|output_scale|input_scale_ub"
    r"|(?:[qkv]|kv)_(?:scale|zero_point)|[kv]_proj\.[kv]_bias)"
)
_OF_TORCHAO = {"_weight_qdata": "weight", "_weight_scale": "weight_scale"}
FBGEMM = "fbgemm_fp8"
# Of writers that state none. The last block of a row or column may be a part of one.
_USUAL_BLOCKS = ([128, 128], [1, 32], [1, 16])
_NOTE = (
    "The source is already quantized: its matrices are {}. Errors are measured against the "
    "stored values, not against the original model."
)


def weights_of(group: Any, name: str = "weights") -> Mapping[str, Any]:
    """The settings for weights of a group of compressed-tensors, or of Quark by that `name`; {} if
    there are none."""
    weights = group.get(name) if isinstance(group, dict) else None
    return weights if isinstance(weights, dict) else {}


def has_float8(stored: LazyTensors) -> bool:
    """Whether a tensor is in FP8, or HQQ's, which settings need not say."""
    in_float8 = any(tensor.dtype in _FLOAT8 for tensor in stored.stored.values())
    return in_float8 or has_hqq(stored)


def in_floating_point(
    stored: LazyTensors,
    settings: Mapping[str, Any] | None,
    source: str,
    called: Mapping[str, str] = MappingProxyType({}),
) -> tuple[LazyTensors, tuple[str, ...]]:
    """(`stored`, with each matrix in FP8 or FP4 multiplied by its scales, which are removed;
    notes). `called`: the name of a tensor in the files and `settings`, if it differs.

    Raises `InputError`, naming `source`, if scales are missing or do not fit, or if the inputs of
    linears are transformed at run time.
    """
    refuse_rotated(settings or {}, source)
    refuse_transformed(settings or {}, source)
    method = method_of(settings or {})
    if method == BITSANDBYTES:
        return in_float32(stored, source), (_NOTE.format("rounded by bitsandbytes"),)
    if method == HQQ or (settings is None and has_hqq(stored)):
        return without_hqq(stored, source), (_NOTE.format("rounded by HQQ"),)
    affine = {name for name in stored if method == MLX.name and name.endswith(MLX.marked_by)}
    if affine:
        stored = without_affine(stored, settings or {}, source, called)
    stored = stored.renamed({name: _usual_name(name) for name in stored})
    in_float8, kinds = as_float8(stored, source)
    tensors = in_float8.stored
    for name in [name for name in tensors if _OF_ACTIVATIONS.fullmatch(name)]:
        del tensors[name]
    matrices = [name for name in tensors if tensors[name].dtype in _FLOAT8]
    scaled = [name for name in matrices if any(name + end in tensors for end in _SCALES)]
    # Without settings and scales they were cast, as other floating point is.
    for name in scaled if settings is None and not scaled else matrices:
        scales = next((name + end for end in _SCALES if name + end in tensors), None)
        if scales is None:
            raise InputError(
                f"{source}: {name} is in FP8, but {name}{_SCALES[0]} or {name}{_SCALES[1]} is "
                "missing; download the model's missing files"
            )
        tensors[name] = _scaled(name, tensors[name], tensors.pop(scales), settings or {}, source)
        of_inputs = name.removesuffix(".weight") + OF_INPUTS
        if of_inputs in tensors:
            factors = tensors.pop(of_inputs)
            tensors[name] = with_inputs_scaled(tensors[name], factors, of_inputs, source)
    if not matrices:
        return stored, ()
    if any(name in stored and stored.stored[name].dtype in _FLOAT8 for name in matrices):
        kinds.add("FP8")
    kinds |= {"affine integers"} if affine else set()
    return LazyTensors(tensors), (_NOTE.format(f"in {' and '.join(sorted(kinds))}"),)


def _usual_name(name: str) -> str:
    module, _, part = name.rpartition(".")
    return f"{module}.{_OF_TORCHAO[part]}" if part in _OF_TORCHAO else name


def _divides(settings: Mapping[str, Any], source: str) -> bool:
    """Whether numbers are divided by their scales, as in GPTQModel, which also uses the field
    `method` for its method."""
    stated = settings.get("weight_scale_semantics")
    if stated not in (None, "inverse"):
        raise InputError(
            f"{source}: its weight_scale_semantics is {str(stated)[:80]!r}, expected 'inverse'; "
            "use the original model"
        )
    return stated is not None or settings.get("method") == "fp8"


def _scaled(
    name: str, matrix: StoredTensor, scales: StoredTensor, settings: Mapping[str, Any], source: str
) -> StoredTensor:
    """`matrix` [N, K], or one [N, K] for each expert, times its `scales`, or divided by them."""
    shape, of_one = matrix.shape, matrix.shape[-2:]
    experts = shape[0] if len(shape) == 3 else 1
    grid = _grid(shape, scales.shape, settings)
    are_matrices = len(shape) in (2, 3) and grid is not None and 0 not in (*shape, *grid)
    blocks = _blocks(of_one, grid, settings) if are_matrices and grid is not None else None
    are_scales = scales.dtype.is_floating_point or scales.dtype == torch.uint8
    if grid is None or blocks is None or not are_scales:
        raise _misfit(name, shape, scales, source)
    of_rows, of_columns = (
        torch.arange(size) // block for size, block in zip(of_one, blocks, strict=True)
    )
    divides = _divides(settings, source)

    def rows(some: slice) -> torch.Tensor:
        """Of all experts, one after the other."""
        factors = factors_of(scales.load()).reshape(-1, *grid).expand(experts, *grid)
        factors = factors.reciprocal() if divides else factors
        row = torch.arange(experts * of_one[0])[some]
        factors = factors[row // of_one[0], of_rows[row % of_one[0]]][:, of_columns]
        return LazyTensors({name: matrix}).rows_of(name)(some).float() * factors

    return StoredTensor(shape, torch.float32, MadeByRows(shape, rows))


def _grid(
    shape: tuple[int, ...], scales: tuple[int, ...], settings: Mapping[str, Any]
) -> tuple[int, int] | None:
    """How many scales of the shape `scales` lie along the rows and columns of a matrix of `shape`,
    or of each expert's; None if they are of another."""
    if scales[1::2] == (1, 1):  # ModelOpt's have a dimension within each block too
        scales = scales[::2]
    if len(shape) == 3 and math.prod(scales) != 1:
        if scales[:1] != shape[:1]:
            return None
        scales = scales[1:]
        # Of Llama 4's, which are stored [K, N] each, one for every n.
        if method_of(settings) == FBGEMM and scales == (shape[2], 1):
            scales = scales[::-1]
    high, wide, *_ = (*scales, 1, 1)
    return (high, wide) if len(scales) <= 2 else None


def _blocks(
    shape: tuple[int, ...], grid: tuple[int, ...], settings: Mapping[str, Any]
) -> list[int] | None:
    """The rows and columns that share a scale in a matrix with a `grid` of scales: as stated, the
    usual ones, or the only power of 2 that gives this grid."""
    stated = settings.get("weight_block_size")
    groups = settings.get("config_groups")
    for group in groups.values() if isinstance(groups, dict) else ():
        stated = weights_of(group).get("block_structure") or stated
    for blocks in (stated, *_USUAL_BLOCKS):
        if isinstance(blocks, list) and _counts(shape, blocks) == list(grid):
            return blocks
    found = [size // count for size, count in zip(shape, grid, strict=True)]
    cut = [block for block, count in zip(found, grid, strict=True) if count > 1]
    whole = _counts(shape, found) == list(grid) and not any(block & (block - 1) for block in cut)
    return found if whole else None


def _counts(shape: tuple[int, ...], blocks: list[Any]) -> list[int] | None:
    """How many `blocks` lie in each dimension, a part of one counted; None if they are none."""
    if len(blocks) != len(shape) or not all(isinstance(b, int) and b > 0 for b in blocks):
        return None
    return [-(-size // block) for size, block in zip(shape, blocks, strict=True)]


def _misfit(name: str, shape: tuple[int, ...], scales: StoredTensor, source: str) -> InputError:
    return InputError(
        f"{source}: {name} is in FP8 of shape {list(shape)}, but its scales are {scales}, "
        "expected one, one a row, or one for each block of weight_block_size, which must be set "
        "if blocks do not divide rows and columns; set it, or use the original model"
    )
