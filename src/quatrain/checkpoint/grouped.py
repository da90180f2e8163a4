"""A quantized linear as some other format holds it, and how it becomes the layout's.

GPTQ, AWQ, compressed-tensors and torchao all store `(value - zero) * scale` per group of input
features; each reader says where those are, and this says what may become of them.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from quatrain.checkpoint.layout import GROUP_SIZES
from quatrain.checkpoint.tensors import LazyTensors, StoredTensor
from quatrain.errors import InputError

# (linear's name, weight float32 [N, K], group size) -> int8 [N, K], float32 scales [N, K / size]
RoundAgain = Callable[[str, torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class GroupedLinear:
    """One quantized matrix [N, K] in G groups a row; nothing is read before it is called for.

    `values` gives int8 [N, K]; `scales` [N, G] in `scales_dtype`; `zeros`, where the file has
    them, [N, G] of the values' kind, 0 for a symmetric group; `group_of`, where the file has it,
    int64 [K]: the group of each input feature, `arange(K) // (K / G)` unless it is act-order.
    """

    shape: tuple[int, int]
    groups: int
    scales_dtype: torch.dtype
    values: Callable[[], torch.Tensor]
    scales: Callable[[], torch.Tensor]
    zeros: Callable[[], torch.Tensor] | None = None
    group_of: Callable[[], torch.Tensor] | None = None


def in_layout(
    linears: Mapping[str, GroupedLinear], source: str, round_again: RoundAgain | None = None
) -> LazyTensors:
    """The linears as `F.weight` int8 [N, K], `F.scales` [N, G] and, where stored, `F.zeros`.

    Values and scales are the file's own. One group a row is written as several of the same scale
    where no kernel takes a group as long as the row. An act-order linear is refused when it is
    read; one that is asymmetric shows its `zeros`, which `Checkpoint.check_values` refuses. With
    `round_again` both are dequantized and rounded by it, symmetrically, when they are read.
    """
    stored: dict[str, StoredTensor] = {}
    for name, linear in linears.items():
        if round_again is not None and (linear.zeros or linear.group_of):
            stored |= _rounded_again(name, linear, source, round_again)
        else:
            stored |= _as_they_are(name, linear, source)
    return LazyTensors(stored)


def _as_they_are(name: str, linear: GroupedLinear, source: str) -> dict[str, StoredTensor]:
    groups = _groups_to_write(linear)
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
    name: str, linear: GroupedLinear, source: str, round_again: RoundAgain
) -> dict[str, StoredTensor]:
    groups = _groups_to_write(linear)
    held: list[torch.Tensor] = []

    def make() -> tuple[torch.Tensor, torch.Tensor]:
        scales = linear.scales().float()
        zeros = linear.zeros().float() if linear.zeros else torch.zeros_like(scales)
        if not zeros.any() and not _is_act_order(linear):
            return linear.values(), _spread(scales, groups)
        weight = _dequantized(linear, scales, zeros)
        try:
            return round_again(name, weight, linear.shape[1] // groups)
        except ValueError as error:
            raise InputError(f"{source}: {name} {error}; the file is damaged") from error

    def weight() -> torch.Tensor:
        # The scales are asked for next, and belong to these values: made once, held till then.
        values, scales = make()
        held[:] = [scales]
        return values

    def scales() -> torch.Tensor:
        return held.pop() if held else make()[1]

    return {
        f"{name}.weight": StoredTensor(linear.shape, torch.int8, weight),
        f"{name}.scales": StoredTensor((linear.shape[0], groups), torch.float32, scales),
    }


def _dequantized(linear: GroupedLinear, scales: torch.Tensor, zeros: torch.Tensor) -> torch.Tensor:
    """float32 [N, K] from scales and zeros [N, G]."""
    columns = linear.shape[1]
    group_of = (
        linear.group_of()
        if linear.group_of
        else torch.arange(columns) // (columns // linear.groups)
    )
    return (linear.values().float() - zeros[:, group_of]) * scales[:, group_of]


def _is_act_order(linear: GroupedLinear) -> bool:
    if linear.group_of is None:
        return False
    columns = linear.shape[1]
    in_order = torch.arange(columns) // max(1, columns // linear.groups)
    return not torch.equal(linear.group_of(), in_order)


def _groups_to_write(linear: GroupedLinear) -> int:
    """The file's groups, or more of them where one spans a whole row and is too long."""
    columns = linear.shape[1]
    if linear.groups != 1 or columns in GROUP_SIZES:
        return linear.groups
    fitting = [size for size in GROUP_SIZES if columns % size == 0]
    return columns // max(fitting) if fitting else 1


def _spread(per_group: torch.Tensor, groups: int) -> torch.Tensor:
    """[N, G] to [N, groups], each repeated where there is one a row."""
    return per_group if per_group.shape[1] == groups else per_group.expand(-1, groups)
