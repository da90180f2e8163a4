"""The size of a Vulkan program without its constants: its graph, and the tables of the file.

Each figure is the number of bytes that one more item adds to programs that Quatrain wrote: an
operator with its result and the values that only it reads, a named constant, a method. A test
compares them with exports.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from quatrain.backbone.block import Block
from quatrain.backbone.layers.attention import Attention, PositionTemperature
from quatrain.backbone.layers.feed_forward import ACTIVATIONS, XIELU, FeedForward
from quatrain.backbone.layers.gated_delta_net import GatedDeltaNet
from quatrain.backbone.layers.latent_attention import LatentAttention
from quatrain.backbone.layers.learned_positions import LearnedPositions
from quatrain.backbone.layers.mamba import Mamba2
from quatrain.backbone.layers.moe import MixtureOfExperts, SharedExpertGate
from quatrain.backbone.layers.norm import InputScaledNorm, LayerNorm
from quatrain.backbone.layers.output_bias import OutputBias
from quatrain.backbone.layers.per_layer import LayerScalar, PerLayerBranch, PerLayerInputs
from quatrain.backbone.layers.residual import FixedResidual
from quatrain.backbone.layers.scaling import Factor, SoftCap
from quatrain.backbone.model import Backbone
from quatrain.export.operators.short_conv import KeptConv
from quatrain.export.plan.sizes import Key
from quatrain.export.vulkan.masked_attention import MaskedSdpa, PositionMask
from quatrain.export.vulkan.operator_modules import VulkanRMSNorm
from quatrain.int4 import CHANNELS_TOGETHER
from quatrain.linear import Int4Linear, Int8DynActInt4WeightLinear, QuantizedGroupEmbedding
from quatrain.multiples import up_to
from quatrain.program.file.segments import ALIGNMENT

# Of the Vulkan delegate's graph.
_GRAPH, _GRAPH_OF_PROMPTS = 1_830, 662
_INT4_LINEAR, _SUMS, _BIAS, _CUT_CHANNELS, _FLOAT_LINEAR = 458, 172, 115, 130, 330
_QPARAMS, _NORM, _ATTENTION, _ROTARY, _FEED_FORWARD, _BLOCK = 510, 259, 1_162, 228, 253, 228
_MASKED, _OF_WINDOW, _CAPPED, _MASK = 2_340, 600, 280, 3_220  # what attention has beyond its own
_EMBEDDING, _INT4_EMBEDDING, _ELEMENT_WISE, _FACTOR, _XIELU = 314, 442, 140, 400, 1_390
_LAYER_NORM, _CONV, _TEMPERATURE = 600, 3_100, 560
_LATENT_ATTENTION, _POSITIONS, _OF_SINKS = 3_950, 340, 1_300
_DELTA_RULE, _KEYS_FOR_VALUES = 17_300, 1_900  # of a gated delta rule
# Of a state space; what the first of a program is smaller by, and one beside attention.
_STATE_SPACE, _FOR_HEADS, _FIRST, _BESIDE = 12_400, 1_400, 4_100, 350
_PER_LAYER, _PER_LAYER_BRANCH = 2_700, 533  # of embeddings for each layer: for all, and a layer's
_ROUTED, _EXPERT, _PICK = 270, 464, 1_280  # of a mixture: scores; what an expert and a pick add
# Linears that read what another one reads.
_SHARED_INPUT = (
    "wk", "wv", "wkv_a", "og", "w3", "C_proj", "x_proj", "laurel.left", "mamba.in_proj_z",
)  # fmt: skip

# Of the file's root.
_ROOT, _NAMED_CONSTANT, _METHOD, _USUAL_METHODS = 3_466, 116, 277, 9


def vulkan_bytes(
    backbone: Backbone, constants: Mapping[Key, int], metadata: Mapping[str, Any]
) -> int:
    """The bytes of the file whose constants are these and whose methods are `metadata`."""
    methods = _METHOD * (len(metadata) - _USUAL_METHODS)
    root = _ROOT + _NAMED_CONSTANT * len(constants) + methods
    stored = sum(up_to(nbytes, ALIGNMENT) for nbytes in constants.values())
    return up_to(root, ALIGNMENT) + stored + _graph_bytes(backbone)


def _graph_bytes(backbone: Backbone) -> int:
    dynamic = any(isinstance(part, Int8DynActInt4WeightLinear) for part in backbone.modules())
    shared = _shared_inputs(backbone)
    parts = (_part_bytes(name, part, shared) for name, part in backbone.named_modules())
    once = _FIRST * any(isinstance(part, Mamba2) for part in backbone.modules())
    return _GRAPH + _GRAPH_OF_PROMPTS * dynamic - once + sum(parts)


def _part_bytes(name: str, part: nn.Module, shared: tuple[str, ...]) -> int:
    if isinstance(part, Int4Linear):
        return _linear_bytes(name, part, shared)
    if isinstance(part, QuantizedGroupEmbedding):
        return _INT4_EMBEDDING if part.bit_width == 4 else _EMBEDDING
    if isinstance(part, Attention):
        gate = 2 * _ELEMENT_WISE * (part.og is not None)
        return _ATTENTION + _ROTARY * (part.rotary is not None) + gate
    if isinstance(part, GatedDeltaNet):
        return _DELTA_RULE + _KEYS_FOR_VALUES * (part.heads > part.key_heads)
    if isinstance(part, Mamba2):
        return _STATE_SPACE + _FOR_HEADS * (part.groups > 1)
    if isinstance(part, FeedForward):  # others activate in two steps
        return _FEED_FORWARD - _ELEMENT_WISE * (part.activate is ACTIVATIONS["relu"])
    if isinstance(part, Block):
        return _BLOCK - _BESIDE * _has_both(part)
    if isinstance(part, MaskedSdpa):
        of_window, capped = part.mask.before > 0, part.mask.cap is not None
        sinks = _OF_SINKS * (part.sinks is not None)
        return _MASKED + _OF_WINDOW * of_window + _CAPPED * capped + sinks
    if isinstance(part, MixtureOfExperts):
        picks = _PICK * part.activated + 2 * _ELEMENT_WISE * part.normalizes
        picks += _FACTOR * (part.expert_bias is not None)
        picks += _FACTOR * (part.normalizes and not part.is_softmax)
        saved = _QPARAMS * _inputs_that_experts_share(part)
        return _ROUTED + _EXPERT * len(part.experts) + picks - saved
    kinds = {
        VulkanRMSNorm: _NORM, LayerNorm: _LAYER_NORM,
        nn.Linear: _FLOAT_LINEAR, nn.Embedding: _EMBEDDING, Factor: _FACTOR,
        SoftCap: _ELEMENT_WISE, PositionMask: _MASK, KeptConv: _CONV,
        PerLayerInputs: _PER_LAYER, PerLayerBranch: _PER_LAYER_BRANCH, LayerScalar: _FACTOR,
        FixedResidual: _ELEMENT_WISE + _FACTOR, InputScaledNorm: _NORM + _FACTOR,
        SharedExpertGate: 4 * _ELEMENT_WISE, PositionTemperature: _TEMPERATURE, XIELU: _XIELU,
        OutputBias: _FACTOR, LatentAttention: _LATENT_ATTENTION, LearnedPositions: _POSITIONS,
    }  # fmt: skip
    return kinds.get(type(part), 0)


def _linear_bytes(name: str, linear: Int4Linear, shared: tuple[str, ...]) -> int:
    total = _INT4_LINEAR + _BIAS * (linear.bias is not None)
    total += _CUT_CHANNELS * (linear.out_features % CHANNELS_TOGETHER > 0)
    if isinstance(linear, Int8DynActInt4WeightLinear):
        total += _SUMS + _QPARAMS * _quantizes_its_input(name, linear, shared)
    return total


def quantized_inputs(backbone: Backbone) -> int:
    """How many tensors are quantized for the linears that read them."""
    mixtures = (part for part in backbone.modules() if isinstance(part, MixtureOfExperts))
    of_experts = sum(map(_inputs_that_experts_share, mixtures))
    shared, parts = _shared_inputs(backbone), backbone.named_modules()
    return sum(_quantizes_its_input(name, part, shared) for name, part in parts) - of_experts


def _has_both(layer: nn.Module) -> bool:
    """Whether it has a state space beside attention."""
    return isinstance(layer, Block) and None not in (layer.mamba, layer.attention)


def _inputs_that_experts_share(mixture: MixtureOfExperts) -> int:
    """How many of its experts read a tensor that is quantized for the first one already."""
    gate = mixture.experts[0].w1
    shares = mixture.weighs_answers and isinstance(gate, Int8DynActInt4WeightLinear)
    return (len(mixture.experts) - 1) * shares


def _shared_inputs(backbone: Backbone) -> tuple[str, ...]:
    """What the names of linears end in that read what another one reads."""
    config = backbone.config
    one_norm = config.parallel_residual and not config.parallel_ffn_norm
    of_parallel = ("feed_forward.w1",) * one_norm
    beside = ("mamba.in_proj_xBC",) * ("hybrid" in (config.layer_types or ()))
    return _SHARED_INPUT + of_parallel + beside


def _quantizes_its_input(name: str, part: nn.Module, shared: tuple[str, ...]) -> bool:
    return isinstance(part, Int8DynActInt4WeightLinear) and not name.endswith(shared)
