"""What lies around the constants of an XNNPACK program: delegates, one for each linear, the
instructions between them, and the tables of the file.

Each figure is what one more of a kind adds to programs that Quatrain wrote, in bytes or, of
`_INSTRUCTIONS`, in instructions. A test holds them to exports.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from quatrain.backbone.attention import Attention
from quatrain.backbone.feed_forward import FeedForward
from quatrain.backbone.gated_delta_net import GatedDeltaNet
from quatrain.backbone.model import Backbone, Block
from quatrain.backbone.moe import MixtureOfExperts
from quatrain.backbone.norm import InputScaledNorm, LayerNorm, RMSNorm
from quatrain.backbone.residual import FixedResidual
from quatrain.backbone.rope import InterleavedRotary
from quatrain.backbone.scaling import Factor, SoftCap
from quatrain.export.attention_operators import OwnCacheSdpa
from quatrain.export.kept_conv import KeptConv
from quatrain.export.plan.sizes import Key, constants_of_linears, linears_of, up_to
from quatrain.export.template import LAYERS
from quatrain.export.xnnpack.int8_kv_cache import Int8KvCacheSdpa
from quatrain.program.segments import ALIGNMENT

_DELEGATE, _FLOAT_DELEGATE, _BIAS = 912, 576, 160
_ROOT, _NAMED_CONSTANT, _OF_A_DELEGATE, _METHOD, _INSTRUCTION, _VALUE = 1_875, 120, 89, 173, 49, 52
_USUAL_INSTRUCTIONS, _VALUES_OF_AN_INSTRUCTION, _VALUES_OF_A_COPY = 11, 2.42, 4.5
_INSTRUCTIONS: dict[type[nn.Module], int] = {
    RMSNorm: 6, LayerNorm: 4, InputScaledNorm: 7, FeedForward: 3, Block: 2, Factor: 1, SoftCap: 3,
    FixedResidual: 2, OwnCacheSdpa: 24, KeptConv: 18,
    Int8KvCacheSdpa: 21,  # 18, of more values than others
    GatedDeltaNet: 40,
}  # fmt: skip
_EXPERT, _PICK, _NORMALIZED, _WEIGHED = 5.5, 8, 2, 4  # of a mixture of experts
_VIEWS_AND_ATTENTION, _INTERLEAVED, _HALF_SPLIT, _PARTIAL, _GATE = 5, 32, 14, 8, 2


def xnnpack_bytes(
    backbone: Backbone, constants: Mapping[Key, int], metadata: Mapping[str, Any]
) -> int:
    """The bytes of the file whose constants are these and whose methods are `metadata`."""
    linears = linears_of(backbone)
    delegates = sum(up_to(_delegate_bytes(linear), ALIGNMENT) for linear in linears)
    named = len(constants_of_linears(backbone))
    partial = backbone.config.use_hf_rope and backbone.config.partial_rotary_factor < 1
    layers = [_instructions(layer, partial) for layer in backbone.layers]
    rest = _USUAL_INSTRUCTIONS + _instructions(backbone, partial) - sum(layers)
    lowered = layers[:LAYERS] if _is_replicated(backbone) else layers
    values = _VALUES_OF_AN_INSTRUCTION * (rest + sum(lowered))
    values += _VALUES_OF_A_COPY * (len(layers) - len(lowered))
    root = _ROOT + _NAMED_CONSTANT * named + _OF_A_DELEGATE * len(linears)
    root += _METHOD * (len(metadata) + 1) + _INSTRUCTION * (rest + sum(layers))
    stored = sum(up_to(nbytes, ALIGNMENT) for nbytes in constants.values())
    return up_to(int(root + _VALUE * values), ALIGNMENT) + delegates + stored


def _delegate_bytes(linear: nn.Module) -> int:
    is_float = isinstance(linear, nn.Linear)
    has_bias = getattr(linear, "bias", None) is not None
    return (_FLOAT_DELEGATE if is_float else _DELEGATE) + _BIAS * has_bias


def _instructions(part: nn.Module, partial: bool) -> float:
    """Of all that is below `part`, itself counted; `partial`: where a part of each head turns."""
    total = float(len(linears_of(part)))
    for below in part.modules():
        total += _INSTRUCTIONS.get(type(below), 0)
        if isinstance(below, MixtureOfExperts):
            total += _EXPERT * len(below.experts) + _PICK * below.activated
            total += _NORMALIZED * below.normalizes + _WEIGHED * below.weighs_answers
            total += (below.expert_bias is not None) + (below.normalizes and not below.is_softmax)
        if isinstance(below, Attention):
            rotated = _INTERLEAVED if isinstance(below.rotary, InterleavedRotary) else _HALF_SPLIT
            total += _VIEWS_AND_ATTENTION + rotated * (below.rotary is not None)
            total += _PARTIAL * (below.rotary is not None and partial)
            total += 2 * below.norm_whole  # views of all heads together
            total += _GATE * (below.og is not None)
    return total


def _is_replicated(backbone: Backbone) -> bool:
    """Whether its layers are copies of the few that are lowered (see `export.template`)."""
    config = backbone.config
    kinds = {config.layer(index) for index in range(1, config.n_layers)}
    experts = any(isinstance(part, MixtureOfExperts) for part in backbone.modules())
    # Else what layers hand on lies in two places by turns, or they are lowered anyhow.
    steady = config.pre_norm and backbone.rewinds
    return config.n_layers >= LAYERS and len(kinds) == 1 and not experts and steady
