"""What gated delta rules, state spaces and short convolutions add to an XNNPACK program without its
constants and linears, as `xnnpack_overhead` counts it."""

from torch import nn

from quatrain.backbone.layers.gated_delta_net import GatedDeltaNet
from quatrain.backbone.layers.mamba import Mamba2
from quatrain.backbone.layers.short_conv import ShortConv
from quatrain.export.operators.short_conv import KeptConv
from quatrain.export.xnnpack.small_linears import LinearGroupNorm, LinearRMSNorm

_TAP, _FILTER_BIAS, _ACTIVATED, _PRODUCT = 304, 144, 672, 352
_DELTA_HEADS, _GATED_READ, _SPACE_HEADS, _PAST_STATE = 2_848, 1_728, 1_424, 800
_SPACE_GATES = {LinearRMSNorm: 1_584, LinearGroupNorm: 1_840}
_UNGATED_NORM = 688
# Instructions: of the whole, of each tap, where heads share keys, and once in a program.
_OF: dict[type[nn.Module], int] = {GatedDeltaNet: 23, Mamba2: 24, ShortConv: 2, KeptConv: 4}
_REPEATED, _FROM_ONE, POSITION = 8, 6, 9

# Norms that are inside of a delegate counted here.
INSIDE: dict[type[nn.Module], tuple[str, ...]] = {
    GatedDeltaNet: ("q_norm", "k_norm", "norm"), Mamba2: ("norm",),
}  # fmt: skip


def recurrence_instructions(part: nn.Module) -> int:
    """Of `part` itself, without what is below it."""
    total = _OF.get(type(part), 0)
    if isinstance(part, KeptConv):
        total += part.taps
    if isinstance(part, GatedDeltaNet):
        total += _REPEATED * (part.heads != part.key_heads)
    if isinstance(part, Mamba2) and part.heads != part.groups:
        total += _FROM_ONE if part.groups == 1 else _REPEATED
    return total


def recurrence_delegates(part: nn.Module) -> dict[tuple[object, ...], int]:
    """The bytes of each delegate that layers share of `part` itself, by a key of its properties."""
    if isinstance(part, GatedDeltaNet):
        conv, rest = _filter(part.conv1d) + _ACTIVATED, (_DELTA_HEADS, _GATED_READ)
    elif isinstance(part, Mamba2):
        gate = _SPACE_GATES.get(type(part.norm), _UNGATED_NORM)
        conv, rest = _filter(part.conv1d) + _ACTIVATED, (_SPACE_HEADS, _PAST_STATE, gate)
    elif isinstance(part, ShortConv):
        conv, rest = _filter(part.conv) + _PRODUCT, ()
    else:
        return {}
    return {(type(part), index): nbytes for index, nbytes in enumerate((conv, *rest))}


def _filter(conv: nn.Module) -> int:
    assert isinstance(conv, KeptConv)
    return _TAP * conv.taps + _FILTER_BIAS * (conv.bias is not None)
