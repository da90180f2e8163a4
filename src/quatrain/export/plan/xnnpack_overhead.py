"""The size of an XNNPACK program without its constants: delegates of linears and those that layers
share, the instructions between them, and the tables of the file.

Each figure is what one more item adds to programs that Quatrain wrote, in bytes, or in instructions
for `_INSTRUCTIONS`. A test compares them with exports.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from quatrain.backbone.layers.attention import Attention
from quatrain.backbone.layers.feed_forward import XIELU, FeedForward
from quatrain.backbone.layers.gated_delta_net import GatedDeltaNet
from quatrain.backbone.layers.latent_attention import LatentAttention
from quatrain.backbone.layers.learned_positions import LearnedPositions
from quatrain.backbone.layers.mamba import Mamba2
from quatrain.backbone.layers.moe import MixtureOfExperts, SharedExpertGate
from quatrain.backbone.layers.norm import InputScaledNorm, LayerNorm, RMSNorm
from quatrain.backbone.layers.output_bias import OutputBias
from quatrain.backbone.layers.residual import FixedResidual
from quatrain.backbone.layers.rope import InterleavedRotary
from quatrain.backbone.layers.scaling import Factor, SoftCap
from quatrain.backbone.model import Backbone
from quatrain.export.operators.attention import OwnCacheSdpa
from quatrain.export.operators.short_conv import KeptConv
from quatrain.export.plan.recurrence_overhead import (
    INSIDE,
    POSITION,
    recurrence_delegates,
    recurrence_instructions,
)
from quatrain.export.plan.sizes import Key, constants_of_linears, linears_of
from quatrain.export.template.template import LAYERS
from quatrain.export.xnnpack.activations import SigmoidGelu, SquaredRelu
from quatrain.export.xnnpack.int8_kv_cache import Int8KvCacheSdpa
from quatrain.export.xnnpack.layer_parts import (
    PartedAttention,
    PartedBlock,
    PartedFeedForward,
    Sum,
)
from quatrain.export.xnnpack.ring_cache import RingPlaces, RingSdpa
from quatrain.export.xnnpack.small_linears import LinearRMSNorm, WideRope
from quatrain.multiples import up_to
from quatrain.program.file.segments import ALIGNMENT

_DELEGATE, _FLOAT_DELEGATE, _BIAS = 912, 576, 160
# Of the parts of layers that they share, and what some have besides.
_NORM, _HEADS, _NORMED_SUM, _ACTIVATION, _SUM = 1_200, 1_024, 1_408, 560, 448
_ROTATION, _ROTATED_APART, _HEAD_NORM, _QUERY_FACTOR, _GATE_OF = 672, 400, 840, 160, 368
_GELU, _SQUARED_RELU, _RELU = 600, 200, -160
_VALUES_OF_PARTS, _VALUES_OF_A_RULE = 7, 24
_ROOT, _NAMED_CONSTANT, _OF_A_DELEGATE, _METHOD, _INSTRUCTION, _VALUE = 1_875, 120, 89, 173, 49, 52
_USUAL_INSTRUCTIONS, _VALUES_OF_AN_INSTRUCTION, _VALUES_OF_A_COPY = 11, 2.42, 4.5
_INSTRUCTIONS: dict[type[nn.Module], int] = {
    RMSNorm: 6, LinearRMSNorm: 1, LayerNorm: 4, InputScaledNorm: 7, FeedForward: 3,
    PartedFeedForward: 1, PartedAttention: 4, Sum: 1, PartedBlock: 2,
    Factor: 1, SoftCap: 3, FixedResidual: 3, OwnCacheSdpa: 24,
    Int8KvCacheSdpa: 21,  # 18, of more values than others
    RingSdpa: 2, SharedExpertGate: 4, XIELU: 9, OutputBias: 1, LearnedPositions: 2,
}  # fmt: skip
# What a delegate computes of a part, or of the linear that it is joined with.
_PARTED_INSIDE: dict[type[nn.Module], tuple[str, ...]] = {
    PartedAttention: ("wk", "wv", "q_norm_fn", "k_norm_fn", "rotary", "scale_query"),
    PartedFeedForward: ("w3",), PartedBlock: ("ffn_norm",), **INSIDE,
}  # fmt: skip
_EXPERT, _PICK, _NORMALIZED, _WEIGHED = 5.5, 8, 2, 4  # of a mixture of experts
_RING_PLACES = 30  # once for all layers of a window
_VIEWS_AND_ATTENTION, _INTERLEAVED, _HALF_SPLIT, _PARTIAL, _GATE = 5, 32, 14, 8, 2
_WIDE_PAIRS, _WIDE_HALVES, _UNREAD_ROPE = 7, 2, 11
_LATENT_ATTENTION = 31
# Of attention with a soft cap or sinks; what sinks add, and a window.
_BY_PARTS, _SINKS, _WINDOW = 28, 5, 3


def xnnpack_bytes(
    backbone: Backbone, constants: Mapping[Key, int], metadata: Mapping[str, Any]
) -> int:
    """The bytes of the file whose constants are these and whose methods are `metadata`."""
    delegates = [*_linears(backbone), *_shared_delegates(backbone).values()]
    named = len(constants_of_linears(backbone)) - _joined_away(backbone)
    partial = backbone.config.use_hf_rope and backbone.config.partial_rotary_factor < 1
    layers = [_instructions(layer, partial) for layer in backbone.layers]
    rest = _USUAL_INSTRUCTIONS + _instructions(backbone, partial) - sum(layers)
    rest += _RING_PLACES * sum(isinstance(part, RingPlaces) for part in backbone.modules())
    rest += POSITION * any(isinstance(part, KeptConv) for part in backbone.modules())
    rest -= _UNREAD_ROPE * all(layer.rope == "none" for layer in backbone.layers)
    lowered = LAYERS if _is_replicated(backbone) else len(layers)
    values = _VALUES_OF_AN_INSTRUCTION * rest
    values += sum(_values(layer, partial) for layer in backbone.layers[:lowered])
    values += _VALUES_OF_A_COPY * (len(layers) - lowered)
    root = _ROOT + _NAMED_CONSTANT * named + _OF_A_DELEGATE * len(delegates)
    root += _METHOD * (len(metadata) + 1) + _INSTRUCTION * (rest + sum(layers))
    stored = sum(up_to(nbytes, ALIGNMENT) for nbytes in constants.values())
    stored += sum(up_to(nbytes, ALIGNMENT) for nbytes in delegates)
    return up_to(int(root + _VALUE * values), ALIGNMENT) + stored


def _linears(part: nn.Module) -> list[int]:
    """The bytes of each delegate of a linear below `part`."""
    if isinstance(part, PartedAttention):
        return [_delegate_bytes(linear) for linear in (part.wq, part.wo)]
    if isinstance(part, PartedFeedForward):
        return [_delegate_bytes(linear) for linear in (part.w1, part.w2)]
    if linears_of(part) == [part]:
        return [_delegate_bytes(part)]
    return [nbytes for child in part.children() for nbytes in _linears(child)]


def _shared_delegates(part: nn.Module) -> dict[tuple[object, ...], int]:
    """The bytes of each delegate that layers share below `part`, by a key of its properties."""
    if isinstance(part, LinearRMSNorm):
        return {("norm", part.weight is None): _NORM}
    if isinstance(part, Sum):
        return {("sum",): _SUM}
    if isinstance(part, PartedAttention):
        rows = len(part.wq.weight), len(part.wk.weight), part.head_dim
        return {("heads", _heads(part), *rows): _heads(part)}
    if isinstance(part, PartedFeedForward):
        gate = _GATE_OF * (part.w3 is not None)
        of = {SigmoidGelu: _GELU, SquaredRelu: _SQUARED_RELU, nn.ReLU: _RELU}.get(
            type(part.activate), 0
        )
        activation = _ACTIVATION + gate + of
        return {("activation", activation, len(part.w1.weight)): activation}
    found = recurrence_delegates(part)
    for name, child in part.named_children():
        if name in INSIDE.get(type(part), ()):
            continue
        if isinstance(part, PartedBlock) and name == "ffn_norm":
            found["sum and norm",], found["sum",] = _NORMED_SUM, _SUM
        else:
            found |= _shared_delegates(child)
    return found


def _heads(attention: PartedAttention) -> int:
    norms = [norm for norm in (attention.q_norm_fn, attention.k_norm_fn) if norm is not None]
    rotated = attention.rotary is not None
    apart = attention.norm_before_rope and rotated and bool(norms)
    total = _HEADS + _HEAD_NORM * len(norms) + _ROTATION * rotated + _ROTATED_APART * apart
    return total + _QUERY_FACTOR * (attention.scale_query is not None)


def _joined_away(backbone: Backbone) -> int:
    """How many constants of its linears are in those of the one that they are joined with."""
    joined = []
    for part in backbone.modules():
        if isinstance(part, PartedAttention):
            joined += [part.wk, part.wv]
        elif isinstance(part, PartedFeedForward) and part.w3 is not None:
            joined.append(part.w3)
    return sum(
        2 - isinstance(linear, nn.Linear) + (getattr(linear, "bias", None) is not None)
        for linear in joined
    )


def _values(layer: nn.Module, partial: bool) -> float:
    """What the instructions of a lowered layer take and give."""
    parted = isinstance(layer, PartedBlock)
    rules = sum(isinstance(part, GatedDeltaNet | Mamba2) for part in layer.modules())
    besides = _VALUES_OF_PARTS * parted + _VALUES_OF_A_RULE * rules
    return besides + _VALUES_OF_AN_INSTRUCTION * _instructions(layer, partial)


def _delegate_bytes(linear: nn.Module) -> int:
    is_float = isinstance(linear, nn.Linear)
    has_bias = getattr(linear, "bias", None) is not None
    return (_FLOAT_DELEGATE if is_float else _DELEGATE) + _BIAS * has_bias


def _instructions(part: nn.Module, partial: bool) -> float:
    """Of all that is below `part`, itself counted; `partial`: where a part of each head turns."""
    total = _INSTRUCTIONS.get(type(part), 0) + (linears_of(part) == [part])
    total += recurrence_instructions(part)
    if isinstance(part, MixtureOfExperts):
        total += _EXPERT * len(part.experts) + _PICK * part.activated
        total += _NORMALIZED * part.normalizes + _WEIGHED * part.weighs_answers
        total += (part.expert_bias is not None) + (part.normalizes and not part.is_softmax)
    if isinstance(part, LatentAttention):
        pairs = isinstance(part.rotary, InterleavedRotary)
        total += _LATENT_ATTENTION + (_INTERLEAVED if pairs else _HALF_SPLIT)
    if isinstance(part, OwnCacheSdpa):
        window = _WINDOW * (part.attention_window is not None)
        total += (_BY_PARTS + window) * part.changes_scores + _SINKS * (part.sinks is not None)
    if isinstance(part, Attention):
        rotated = _INTERLEAVED if isinstance(part.rotary, InterleavedRotary) else _HALF_SPLIT
        total += _VIEWS_AND_ATTENTION + rotated * (part.rotary is not None)
        total += _PARTIAL * (part.rotary is not None and partial)
        total += 2 * part.norm_whole  # views of all heads together
        total += _GATE * (part.og is not None)
    if isinstance(part, WideRope):
        total += _WIDE_HALVES if part.half_split else _WIDE_PAIRS
    inside = _PARTED_INSIDE.get(type(part), ())
    children = (child for name, child in part.named_children() if name not in inside)
    return total + sum(_instructions(child, partial) for child in children)


def _is_replicated(backbone: Backbone) -> bool:
    """Whether its layers are copies of the few that are lowered (see `export.template`)."""
    config = backbone.config
    kinds = {config.layer(index) for index in range(1, config.n_layers)}
    experts = any(isinstance(part, MixtureOfExperts) for part in backbone.modules())
    # Else what layers hand on lies in two places by turns, or they are lowered anyhow.
    steady = config.pre_norm and backbone.rewinds
    return config.n_layers >= LAYERS and len(kinds) == 1 and not experts and steady
