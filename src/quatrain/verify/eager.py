"""The eager backbone of a checkpoint, with which programs are compared."""

import math
from pathlib import Path

from quatrain.arithmetic import ARITHMETIC_OF, VULKAN_ARITHMETIC, Arithmetic
from quatrain.backbone.build import build_backbone
from quatrain.backbone.layers.kv_cache import quantize_kv_cache
from quatrain.backbone.model import Backbone
from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.open import open_checkpoint
from quatrain.export.attention_sink import with_attention_sink
from quatrain.export.kernels.assignment import dequantized
from quatrain.export.xnnpack.positive_scales import RoundedAgain, make_scales_positive
from quatrain.int4 import Scheme
from quatrain.linear import Int8DynActInt8WeightLinear
from quatrain.linear.int4 import Int4Linear, compute_as, freeze_weights, without_activation_rounding
from quatrain.program import VulkanGraph
from quatrain.program.inspect.call_shapes import longest_call
from quatrain.program.inspect.linears import find_linears
from quatrain.verify.program_info import ProgramInfo

_QUANTIZED = (Int4Linear, Int8DynActInt8WeightLinear)


def load_eager(
    checkpoint: Path,
    scheme: Scheme = Scheme.DYNAMIC_INT8,
    arithmetic: Arithmetic = VULKAN_ARITHMETIC,
) -> Backbone:
    """The backbone of `checkpoint`, its weights dequantized once for speed.

    `arithmetic`: how the runtime to compare with computes 8da4w linears.
    """
    opened = open_checkpoint(checkpoint)
    opened.check_values()
    backbone = build_backbone(opened.config, opened.tensors, scheme, group_size=opened.group_size)
    compute_as(backbone, arithmetic)
    freeze_weights(backbone)
    return backbone


def eager_for_program(
    checkpoint: Checkpoint, info: ProgramInfo, graph: VulkanGraph | None, arithmetic: Arithmetic
) -> tuple[Backbone, RoundedAgain]:
    """The backbone of `checkpoint` in the scheme and context of a program; its Vulkan `graph`
    says which linears of a mixed one have which, and they compute in `arithmetic`.
    What an XNNPACK program rounds, which has no graph, is rounded alike, and told of weights."""
    backbone = build_backbone(
        with_attention_sink(checkpoint.config, info.attention_sink, info.context),
        checkpoint.tensors,
        info.scheme or Scheme.DYNAMIC_INT8,
        group_size=checkpoint.group_size,
        max_seq_len=info.context,
    )
    if info.int8_kv_cache:
        quantize_kv_cache(backbone)
    if graph:
        _match_schemes(backbone, graph)
        _match_calls(backbone, graph)
    as_stored = graph or info.scheme == Scheme.WEIGHT_ONLY
    rounded = RoundedAgain() if as_stored else make_scales_positive(backbone)
    compute_as(backbone, arithmetic if graph else ARITHMETIC_OF["xnnpack"])
    freeze_weights(backbone)
    return backbone, rounded


def _match_calls(backbone: Backbone, graph: VulkanGraph) -> None:
    """Let `backbone` compute as many rows at a time as a program's calls do, in the output layer
    too: 8da4w computes a single one differently."""
    backbone.metadata = {"get_max_seq_len": longest_call(graph)}
    backbone.every_row = math.prod(graph.tensor(graph.outputs[0]).shape[:-1]) > 1


def _match_schemes(backbone: Backbone, graph: VulkanGraph) -> None:
    """Let the linears of `backbone` be weight-only, or in floating point, that are so in a
    program: one that is mixed, or has no kernel for what is stored (`--allow-fallback`)."""
    modules = dict(backbone.named_modules())
    for linear in find_linears(graph):
        inside = f"{linear.name}.base"  # of one with an adaptor or a rotation
        name = inside if inside in modules else linear.name
        module = modules.get(name)
        if linear.scheme == Scheme.WEIGHT_ONLY and isinstance(module, Int4Linear):
            backbone.set_submodule(name, without_activation_rounding(module))
        elif linear.group_size is None and isinstance(module, _QUANTIZED):
            backbone.set_submodule(name, dequantized(module))
