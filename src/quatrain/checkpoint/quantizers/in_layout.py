"""Converts quantized linears of other formats to the pre-quantized layout."""

import math
from collections.abc import Iterable, Mapping

import torch

from quatrain.checkpoint.files.lazy_tensors import LazyTensors, StoredTensor
from quatrain.checkpoint.quantizers.dequantized import dequantized_rows, zeros_of
from quatrain.checkpoint.quantizers.grouped_linear import (
    USUAL_GROUP_SIZE,
    GroupedLinear,
    RoundAgain,
    rounded_when_read,
)
from quatrain.errors import InputError, shell_word
from quatrain.int4 import GROUP_SIZES

ASYMMETRIC = "asymmetric or in act-order"
IN_GROUPS_OF = "in groups of "  # and their size: ones that no kernel asked for takes
_LARGEST_GROUP = 128  # into which rows are cut: 8da4w is wrong on phones where groups are wider


def in_layout(
    linears: Mapping[str, GroupedLinear],
    source: str,
    round_again: RoundAgain | None = None,
    floating_columns: Iterable[int] = (),
) -> LazyTensors:
    """The linears as `F.weight` int8 [N, K], `F.scales` [N, G] and, if stored, `F.zeros`.

    Values and scales are the file's own. The layers have one group size, the largest that divides
    all groups of theirs: a wider group is written as several of the same scale. An act-order linear
    is refused when it is read; one that is asymmetric shows its `zeros`, which
    `Checkpoint.check_values` refuses. `round_again` rounds those where it takes them, and a layer's
    linears of more than 4 bits or in narrow or odd groups, symmetrically, when they are read;
    without it the latter raise `InputError`. `floating_columns`: input features of linears that are
    still to be rounded.
    """
    stored: dict[str, StoredTensor] = {}
    sizes = GROUP_SIZES if round_again is None else round_again.group_sizes
    group_size = _group_size(linears, floating_columns, sizes)
    for name, linear in linears.items():
        groups = linear.groups
        if (linear.fits_int4 or _is_of_layer(name)) and group_size:
            groups = linear.shape[1] // group_size
        elif _needs_one_scale_per_row(name, linear):
            groups = 1
        why = _why_requantized(name, linear, groups, round_again)
        if why and round_again is None:
            raise InputError(
                f"{source}: {name} is {why} in an int4 layout; run `quatrain convert "
                f"{shell_word(source)} DIR`, which requantizes such linears and reports the error"
            )
        if why and round_again is not None:
            stored |= _requantized(name, linear, groups, source, round_again, why)
        else:
            stored |= _kept(name, linear, groups, source)
    return LazyTensors(stored)


def _group_size(
    linears: Mapping[str, GroupedLinear], floating_columns: Iterable[int], sizes: tuple[int, ...]
) -> int | None:
    """The one group size of the layers, one of `sizes`; None if none fits, which is refused with
    the rest of the structure. If a row is one group, or its groups are divided by none of `sizes`,
    only its length counts: such linears are requantized."""
    layers = {name: linear for name, linear in linears.items() if _is_of_layer(name)}
    int4 = [linear for linear in (layers or linears).values() if linear.fits_int4]
    widths = {linear.shape[1] // linear.groups for linear in int4 if linear.groups > 1}
    odd = {width for width in widths if width % sizes[0]}
    widths -= odd
    if not int4 or (odd and not widths):
        widths = {USUAL_GROUP_SIZE}
    rows = {linear.shape[1] for linear in linears.values() if linear.fits_int4}
    rows |= {linear.shape[1] for linear in layers.values()}
    common = math.gcd(*widths, *rows, *floating_columns)
    fitting = [size for size in sizes if common % size == 0]
    free = [size for size in fitting if size <= _LARGEST_GROUP] if not widths else fitting
    return max(free, default=None)


def _is_of_layer(name: str) -> bool:
    return "layers." in name


def _needs_one_scale_per_row(name: str, linear: GroupedLinear) -> bool:
    """Whether an int8 table needs one scale per row in the layout."""
    is_output = name.rpartition(".")[2] in ("lm_head", "output")
    return not linear.fits_int4 and (is_output or linear.zeros is not None)


def _why_requantized(
    name: str, linear: GroupedLinear, groups: int, round_again: RoundAgain | None
) -> str:
    """Why a linear must be requantized into `groups` a row; '' if it is kept."""
    in_groups = linear.groups > 1 and _needs_one_scale_per_row(name, linear)
    if not linear.fits_int4 and (_is_of_layer(name) or in_groups):
        return f"{linear.bits} bits"
    if linear.fits_int4 and groups % linear.groups:
        return f"{IN_GROUPS_OF}{linear.shape[1] // linear.groups}"
    takes = round_again is not None and round_again.asymmetric
    return ASYMMETRIC if takes and (linear.zeros or linear.group_of) else ""


def _kept(name: str, linear: GroupedLinear, groups: int, source: str) -> dict[str, StoredTensor]:
    shape = (linear.shape[0], groups)

    def weight() -> torch.Tensor:
        if _is_act_order(linear):
            raise InputError(
                f"{source}: {name} is quantized in act-order (desc_act): the columns of a group "
                "are not adjacent, which no int4 kernel can read. Convert it with "
                "--requantize-asymmetric, which requantizes it and reports the error, or "
                "quantize the model with desc_act=False."
            )
        return linear.values()

    stored = {
        f"{name}.weight": StoredTensor(linear.shape, torch.int8, weight),
        f"{name}.scales": StoredTensor(
            shape, linear.scales_dtype, lambda: _repeated(linear.scales(), groups)
        ),
    }
    if linear.zeros is not None:
        zeros = linear.zeros
        stored[f"{name}.zeros"] = StoredTensor(
            shape, torch.float32, lambda: _repeated(zeros().float(), groups)
        )
    return stored


def _requantized(
    name: str,
    linear: GroupedLinear,
    groups: int,
    source: str,
    round_again: RoundAgain,
    why: str,
) -> dict[str, StoredTensor]:
    int4 = linear.fits_int4 or _is_of_layer(name)
    group_size = linear.shape[1] // groups if int4 else None

    def rounded() -> tuple[torch.Tensor, torch.Tensor]:
        scales = linear.scales().float()
        zeros = zeros_of(linear, scales)
        fits = not groups % linear.groups and (linear.fits_int4 or not int4)
        if fits and not zeros.any() and not _is_act_order(linear):
            return linear.values(), _repeated(scales, groups)
        rows = dequantized_rows(linear, scales, zeros)
        values, scales = round_again(name, rows, linear.shape, group_size, why)
        return values, _repeated(scales.view(linear.shape[0], -1), groups)

    shape = (linear.shape[0], groups)
    return rounded_when_read(name, linear.shape, shape, rounded, f"{source}: {name}")


def _is_act_order(linear: GroupedLinear) -> bool:
    if linear.group_of is None:
        return False
    columns = linear.shape[1]
    in_order = torch.arange(columns) // max(1, columns // linear.groups)
    return not torch.equal(linear.group_of(), in_order)


def _repeated(per_group: torch.Tensor, groups: int) -> torch.Tensor:
    """[N, G] to [N, groups], each repeated if there are fewer."""
    return per_group.repeat_interleave(groups // per_group.shape[1], dim=1)
