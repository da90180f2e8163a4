"""Backbone parts that trace to one operator of ExecuTorch's CPU runtime each."""

from torch import nn

from quatrain.backbone.layers.delta_rule import DeltaRule
from quatrain.backbone.layers.kv_cache import CachedAttention
from quatrain.backbone.layers.moe import skip_experts
from quatrain.backbone.layers.residual import FixedResidual, GatedResidual
from quatrain.backbone.layers.short_conv import CausalConv
from quatrain.backbone.model import Backbone
from quatrain.export.operators.attention import OneCacheSdpa, OwnCacheSdpa, SdpaWithKvCache
from quatrain.export.operators.short_conv import KeptConv
from quatrain.export.xnnpack.gated_delta_rule import FusedDeltaRule
from quatrain.export.xnnpack.int8_kv_cache import Int8KvCacheSdpa
from quatrain.export.xnnpack.layer_parts import part_layers
from quatrain.export.xnnpack.recurrent_parts import part_recurrences
from quatrain.export.xnnpack.ring_cache import (
    RingPlaces,
    RingSdpa,
    longest_call_of,
    ring_window,
)
from quatrain.linear.adapted import to_fast_hadamard

Rings = dict[tuple[int, int], RingPlaces]  # by their window and sinks


def to_cpu_operators(backbone: Backbone) -> None:
    """Replace, in place, the parts for which ExecuTorch's CPU runtime has one kernel, except
    quantized layers (see `delegated_linears` and `embedding`).

    SpinQuant's rotations become one operator, and experts that no token picks are skipped. What
    lies between linears becomes parts of XNNPACK (`part_layers`).
    """
    to_fast_hadamard(backbone)
    skip_experts(backbone)
    context, chunk = backbone.config.max_seq_len, backbone.config.prefill_chunk_size
    rings: Rings = {}
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, CachedAttention):
                setattr(parent, name, _cpu_attention(child, rings, chunk))
            elif isinstance(child, GatedResidual):
                setattr(parent, name, FixedResidual(child))
            elif isinstance(child, CausalConv):
                setattr(parent, name, _cpu_conv(child, context))
            elif isinstance(child, DeltaRule):
                setattr(parent, name, FusedDeltaRule(child, context))
    part_layers(backbone)
    part_recurrences(backbone)


def _cpu_attention(attend: CachedAttention, rings: Rings, chunk: int | None) -> nn.Module:
    if attend.rounds_to_int8:
        return Int8KvCacheSdpa(attend)
    window = ring_window(attend, chunk)
    if window is not None:
        key = window, attend.attention_sinks
        places = RingPlaces(*key, longest_call_of(window, chunk))
        return RingSdpa(attend, rings.setdefault(key, places))
    plain = attend.attention_window is None and not attend.changes_scores and not attend.shares_kv
    if not plain:
        return OwnCacheSdpa(attend)
    return OneCacheSdpa(attend) if attend.values_are_keys else SdpaWithKvCache(attend)


def _cpu_conv(conv: CausalConv, context: int) -> nn.Module:
    # update_cache checks there for the four dimensions of a KV cache.
    texts, kept, dim = conv.conv_state.shape
    return KeptConv(conv, context, (texts, kept, 1, dim))
