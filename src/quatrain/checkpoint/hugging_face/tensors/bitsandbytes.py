"""Dequantizes matrices of bitsandbytes (Dettmers et al., 2022 and 2023).

| F [N, K] | |
|---|---|
| in 8 bits | F.weight int8 [N, K], F.SCB [N]: each number times its row's of SCB, divided by 127 |
| in NF4 or FP4 | F.weight uint8, two numbers of the matrix, row after row, an octet, the first in the high bits: places in F.weight.quant_map, times F.weight.absmax of its block |
| blocks | F.weight.absmax float32, or uint8, places in F.weight.nested_quant_map, times F.weight.nested_absmax of their own block, and an offset added |
| shape, sizes of blocks, offset | F.weight.quant_state.bitsandbytes__nf4, or __fp4: JSON |

GPTQModel calls them F.weight_scb, F.weight_absmax and so on.
"""  # noqa: E501

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, MadeByRows, StoredTensor
from quatrain.errors import InputError

BITSANDBYTES = "bitsandbytes"
_STATES = tuple(f".weight.quant_state.bitsandbytes__{kind}" for kind in ("nf4", "fp4"))
_PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
_SCALES, _FORM = "SCB", "weight_format"
_AT_ONCE = 1 << 20  # numbers
_OF_GPTQMODEL = {f"weight_{part}": f"weight.{part}" for part in _PARTS} | {
    "weight_scb": _SCALES,
    "weight_quant_state": _STATES[0].removeprefix("."),  # the JSON says which of the two it is
}


def in_float32(stored: LazyTensors, source: str) -> LazyTensors:
    """`stored`, with each matrix that bitsandbytes quantized dequantized. Raises `InputError`,
    naming `source`, if its parts do not fit one another."""
    stored = stored.renamed({name: _usual_name(name) for name in stored})
    tensors = dict(stored.stored)
    for name in stored:
        module, _, part = name.rpartition(".")
        if part == _SCALES:
            _require_rows(tensors.pop(f"{module}.{_FORM}", None), module, source)
            tensors[f"{module}.weight"] = _of_8_bits(tensors, module, source)
        elif name.endswith(_STATES):
            module = name.partition(".weight.quant_state.")[0]
            tensors[f"{module}.weight"] = _of_4_bits(tensors, module, name, source)
    return LazyTensors(tensors)


def _usual_name(name: str) -> str:
    module, _, part = name.rpartition(".")
    return f"{module}.{_OF_GPTQMODEL[part]}" if part in _OF_GPTQMODEL else name


def _require_rows(form: StoredTensor | None, module: str, source: str) -> None:
    """Refuse a matrix in the order of one generation of GPUs, as older releases saved it."""
    if form is not None and form.load().any():
        raise InputError(
            f"{source}: {module}.{_FORM} is {form.load().tolist()}, expected 0 (by rows), the "
            "only layout that bitsandbytes still reads; quantize the original model"
        )


def _of_8_bits(tensors: dict[str, StoredTensor], module: str, source: str) -> StoredTensor:
    scales, weight = tensors.pop(f"{module}.{_SCALES}"), tensors.get(f"{module}.weight")
    fits = weight is not None and weight.dtype == torch.int8 and len(weight.shape) == 2
    if weight is None or not fits or scales.shape != weight.shape[:1]:
        raise _misfit(module, source)

    def rows(some: slice) -> torch.Tensor:
        return weight.load()[some].float() * (scales.load().float()[some] / 127)[:, None]

    return StoredTensor(weight.shape, torch.float32, MadeByRows(weight.shape, rows))


@dataclass(frozen=True)
class _Blocks:
    """Numbers in blocks of `size` with one scale each: `scales` as stored, or if they are
    themselves quantized, as `nested` dequantizes them."""

    size: int
    scales: StoredTensor
    nested: Callable[[torch.Tensor], torch.Tensor] | None

    def scales_of(self, numbers: torch.Tensor) -> torch.Tensor:
        """The scale of each of the `numbers`, by their places in the matrix."""
        blocks = numbers // self.size
        return self.nested(blocks) if self.nested else self.scales.load().float()[blocks]


def _of_4_bits(
    tensors: dict[str, StoredTensor], module: str, state_name: str, source: str
) -> StoredTensor:
    try:
        state = json.loads(bytes(tensors.pop(state_name).load().flatten().tolist()))
        rows, columns = map(_count, state["shape"])
        packed = tensors[f"{module}.weight"]
        quant_map, blocks = _take_codes_and_blocks(tensors, module, state, rows * columns)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise _misfit(module, source) from error
    octets = math.prod(packed.shape) * packed.dtype.itemsize
    if columns % 2 or 2 * octets != rows * columns:
        raise _misfit(module, source)

    def some_rows(some: slice) -> torch.Tensor:
        first, last, _ = some.indices(rows)
        values = torch.empty((last - first, columns))
        octets = packed.load().view(torch.uint8).flatten()
        for piece in values.split(max(1, _AT_ONCE // columns)):
            end = first + len(piece)
            found = octets[first * columns // 2 : end * columns // 2]
            places = torch.stack((found >> 4, found & 15), -1).flatten().int()
            scales = blocks.scales_of(torch.arange(first * columns, end * columns))
            piece.copy_((quant_map.load().float()[places] * scales).view_as(piece))
            first = end
        return values

    return StoredTensor((rows, columns), torch.float32, MadeByRows((rows, columns), some_rows))


def _take_codes_and_blocks(
    tensors: dict[str, StoredTensor], module: str, state: Mapping[str, Any], count: int
) -> tuple[StoredTensor, _Blocks]:
    """(the value of each code, the blocks), which are removed from `tensors`. Raises `ValueError`
    or `KeyError` if they do not fit a matrix of `count` numbers."""
    own = {
        name: tensors.pop(f"{module}.weight.{name}")
        for name in _PARTS
        if f"{module}.weight.{name}" in tensors
    }
    absmax, size = own["absmax"], _count(state["blocksize"])
    _require(own["quant_map"], 16)
    _require(absmax, -(-count // size))
    if absmax.dtype.is_floating_point:
        return own["quant_map"], _Blocks(size, absmax, None)
    outer, places = own["nested_absmax"], own["nested_quant_map"]
    size_of_outer, offset = _count(state["nested_blocksize"]), float(state["nested_offset"])
    _require(places, 256)
    _require(outer, -(-math.prod(absmax.shape) // size_of_outer))

    def nested(blocks: torch.Tensor) -> torch.Tensor:
        factors = outer.load().float()[blocks // size_of_outer]
        return places.load().float()[absmax.load()[blocks].int()] * factors + offset

    return own["quant_map"], _Blocks(size, absmax, nested)


def _count(stated: Any) -> int:
    if type(stated) is not int or stated < 1:
        raise ValueError(f"{stated}, expected a whole number")
    return stated


def _require(tensor: StoredTensor, count: int) -> None:
    if tensor.shape != (count,):
        raise ValueError(f"{tensor.shape}, expected {count}")


def _misfit(module: str, source: str) -> InputError:
    return InputError(
        f"{source}: {module}.weight is quantized by bitsandbytes, but its parts do not fit one "
        "another; download the model's files again, or quantize the original model"
    )
