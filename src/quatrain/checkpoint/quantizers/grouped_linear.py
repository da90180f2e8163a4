"""A quantized linear as some other format holds it, and how it becomes the layout's.

GPTQ, AWQ, compressed-tensors and torchao all store `(value - zero) * scale` per group of input
features; each reader says where those are, and this says what may become of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, RowsOf, StoredTensor
from quatrain.errors import InputError
from quatrain.int4 import GROUP_SIZES

# (linear's name, its rows, shape [N, K], group size) -> int8 [N, K], float32 scales
# [N, K / group size]; without a group size int8 by row, with scales [N]. The same linear may be
# given more than once, and must give the same.
RoundAgain = Callable[[str, RowsOf, tuple[int, ...], int | None], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class GroupedLinear:
    """One quantized matrix [N, K] in G groups a row; nothing is read before it is called for.

    `values` gives int8 [N, K]; `scales` [N, G] in `scales_dtype`; `zeros`, where the file has
    them, [N, G] of the values' kind, 0 for a symmetric group; `group_of`, where the file has it,
    int64 [K]: the group of each input feature, `arange(K) // (K / G)` unless it is act-order.
    `int8`: the values are no int4 ones, which an embedding or output layer may have.
    """

    shape: tuple[int, int]
    groups: int
    scales_dtype: torch.dtype
    values: Callable[[], torch.Tensor]
    scales: Callable[[], torch.Tensor]
    zeros: Callable[[], torch.Tensor] | None = None
    group_of: Callable[[], torch.Tensor] | None = None
    int8: bool = False


def in_layout(
    linears: Mapping[str, GroupedLinear], source: str, round_again: RoundAgain | None = None
) -> LazyTensors:
    """The linears as `F.weight` int8 [N, K], `F.scales` [N, G] and, where stored, `F.zeros`.

    Values and scales are the file's own. One group a row of int4 is written as several of the same
    scale, since no kernel takes a group as long as a row. An act-order linear is refused when it is
    read; one that is asymmetric shows its `zeros`, which `Checkpoint.check_values` refuses. With
    `round_again` both are dequantized and rounded by it, symmetrically, when they are read.
    """
    stored: dict[str, StoredTensor] = {}
    row_group_size = _row_group_size(linears)
    for name, linear in linears.items():
        groups = linear.groups
        if groups == 1 and not linear.int8 and row_group_size:
            groups = linear.shape[1] // row_group_size
        if round_again is not None and (linear.zeros or linear.group_of):
            stored |= _rounded_again(name, linear, groups, source, round_again)
        else:
            stored |= _as_they_are(name, linear, groups, source)
    return LazyTensors(stored)


def _row_group_size(linears: Mapping[str, GroupedLinear]) -> int | None:
    """The group size in which matrices of one group a row are written: one for all of them, and
    that of the layers' others where there are such; None where none divides their rows."""
    int4 = {name: linear for name, linear in linears.items() if not linear.int8}
    rows = [linear.shape[1] for linear in int4.values() if linear.groups == 1]
    others = {
        linear.shape[1] // linear.groups
        for name, linear in int4.items()
        if linear.groups > 1 and "layers." in name
    }
    fitting = [
        size for size in others or GROUP_SIZES if all(columns % size == 0 for columns in rows)
    ]
    return max(fitting, default=None)


def _as_they_are(
    name: str, linear: GroupedLinear, groups: int, source: str
) -> dict[str, StoredTensor]:
    shape = (linear.shape[0], groups)

    def weight() -> torch.Tensor:
        if _is_act_order(linear):
            raise InputError(
                f"{source}: {name} is quantized in act-order (desc_act): its groups are not "
                "neighbours in a row, which no int4 kernel can read. Convert it with "
                "--requantize-asymmetric, which rounds it anew and says what that costs, or "
                "quantize the model with desc_act=False."
            )
        return linear.values()

    stored = {
        f"{name}.weight": StoredTensor(linear.shape, torch.int8, weight),
        f"{name}.scales": StoredTensor(
            shape, linear.scales_dtype, lambda: _spread(linear.scales(), groups)
        ),
    }
    if linear.zeros is not None:
        zeros = linear.zeros
        stored[f"{name}.zeros"] = StoredTensor(
            shape, torch.float32, lambda: _spread(zeros().float(), groups)
        )
    return stored


def _rounded_again(
    name: str, linear: GroupedLinear, groups: int, source: str, round_again: RoundAgain
) -> dict[str, StoredTensor]:
    group_size = None if linear.int8 else linear.shape[1] // groups
    kept_scales: list[torch.Tensor] = []  # once they are made: an eighth of the values' bytes

    def make() -> tuple[torch.Tensor, torch.Tensor]:
        scales = linear.scales().float()
        zeros = linear.zeros().float() if linear.zeros else torch.zeros_like(scales)
        if not zeros.any() and not _is_act_order(linear):
            return linear.values(), _spread(scales, groups)
        rows = _dequantized_rows(linear, scales, zeros)
        try:
            values, scales = round_again(name, rows, linear.shape, group_size)
        except ValueError as error:
            raise InputError(f"{source}: {name} {error}; the file is damaged") from error
        return values, _spread(scales.view(linear.shape[0], -1), groups)

    def weight() -> torch.Tensor:
        values, made = make()
        kept_scales[:] = [made]
        return values

    def scales() -> torch.Tensor:
        if not kept_scales:
            kept_scales[:] = [make()[1]]
        return kept_scales[0]

    return {
        f"{name}.weight": StoredTensor(linear.shape, torch.int8, weight),
        f"{name}.scales": StoredTensor((linear.shape[0], groups), torch.float32, scales),
    }


def _dequantized_rows(linear: GroupedLinear, scales: torch.Tensor, zeros: torch.Tensor) -> RowsOf:
    """Rows of the float32 [N, K] that scales and zeros [N, G] make of the values."""
    columns = linear.shape[1]
    group_of = (
        linear.group_of()
        if linear.group_of
        else torch.arange(columns) // (columns // linear.groups)
    )
    values = linear.values()

    def rows_of(rows: slice) -> torch.Tensor:
        return (values[rows].float() - zeros[rows][:, group_of]) * scales[rows][:, group_of]

    return rows_of


def _is_act_order(linear: GroupedLinear) -> bool:
    if linear.group_of is None:
        return False
    columns = linear.shape[1]
    in_order = torch.arange(columns) // max(1, columns // linear.groups)
    return not torch.equal(linear.group_of(), in_order)


def _spread(per_group: torch.Tensor, groups: int) -> torch.Tensor:
    """[N, G] to [N, groups], each repeated where there is one a row."""
    return per_group if per_group.shape[1] == groups else per_group.expand(-1, groups)
