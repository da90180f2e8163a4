"""Predicts the size of a program from the shapes of a backbone's tensors.

Constants are counted as `constants` lays them out, each once; what lies around them, the graph in
FlatBuffers, by `vulkan_overhead` and `xnnpack_overhead`.
"""

from collections.abc import Iterator
from math import prod

import torch
from torch import nn

from quatrain.backbone.model import Backbone
from quatrain.export.options import ExportOptions
from quatrain.export.vulkan.cpu_table import CpuTable
from quatrain.export.xnnpack.small_linears import FixedLinear
from quatrain.int4 import CHANNELS_TOGETHER
from quatrain.linear import Int8DynActInt4WeightLinear, QuantizedGroupEmbedding
from quatrain.linear.int4 import Int4Linear
from quatrain.linear.int8 import Int8DynActInt8WeightLinear
from quatrain.multiples import up_to
from quatrain.program.edit.constant_source import Form

# What tells constants apart: those of one form and tensor are stored once.
Key = tuple[Form, int, int]
_CACHES = (
    "k_cache", "v_cache", "conv_state", "recurrent_state",
    "k_cache_scales", "k_cache_zero_points", "v_cache_scales", "v_cache_zero_points",
)  # fmt: skip


def constants_of(backbone: Backbone, options: ExportOptions) -> dict[Key, int]:
    """The bytes of each constant of the program of `backbone`, whose parts are operators
    already."""
    found: dict[Key, int] = {}
    itemsize = options.itemsize
    unread = _unread_tables(backbone)
    for part in backbone.modules():
        if part in unread:
            continue
        constants = _on_vulkan(part, itemsize) if options.backend == "vulkan" else _on_cpu(part)
        for form, tensor, nbytes in constants:
            found[_key(form, tensor)] = nbytes
    if options.backend == "vulkan":  # where an empty cache is a constant of zeros
        for cache in _caches(backbone):
            found[Form.PLAIN, 0, cache.numel()] = cache.numel() * itemsize
    return found


def _unread_tables(backbone: Backbone) -> set[nn.Module]:
    """The rotary tables of full-attention layers if there is no such layer: unread tensors are not
    stored."""
    unread = all(layer.rope != "global" for layer in backbone.layers)
    return set(backbone.rope.modules()) if unread else set()


def linears_of(part: nn.Module) -> list[nn.Module]:
    """Every linear below `part`."""
    kinds = (Int4Linear, Int8DynActInt8WeightLinear, nn.Linear)
    return [below for below in part.modules() if isinstance(below, kinds)]


def constants_of_linears(backbone: Backbone) -> dict[Key, int]:
    """The bytes of each constant of XNNPACK's linears in `backbone`, which XNNPACK packs again when
    it loads."""
    fixed = [part for part in backbone.modules() if isinstance(part, FixedLinear)]
    return {
        _key(form, tensor): nbytes
        for linear in [*linears_of(backbone), *fixed]
        for form, tensor, nbytes in _on_cpu(linear)
    }


def cpu_table_bytes(backbone: Backbone) -> int:
    """Of the tables that a Vulkan program keeps out of its delegate."""
    tables = [part for part in backbone.modules() if isinstance(part, CpuTable)]
    return sum(nbytes for part in tables for _, _, nbytes in _on_vulkan(part, 4))


def cache_bytes(backbone: Backbone, itemsize: int) -> int:
    """Of all keys and values that the program keeps."""
    return sum(
        cache.numel() * (itemsize if cache.is_floating_point() else cache.element_size())
        for cache in _caches(backbone)
    )


def _caches(backbone: Backbone) -> list[torch.Tensor]:
    return [each for name, each in backbone.named_buffers() if name.endswith(_CACHES)]


def _key(form: Form, tensor: torch.Tensor) -> Key:
    if not tensor.is_meta:  # of no checkpoint, such as a norm's ones: those that are alike are one
        alike = hash(tensor.detach().numpy().tobytes()) if tensor.any() else 0
        return form, alike, tensor.numel()
    return form, tensor.untyped_storage()._cdata, int(tensor.storage_offset())


def _on_vulkan(part: nn.Module, itemsize: int) -> Iterator[tuple[Form, torch.Tensor, int]]:
    """The constants that `vulkan.packed_layers` stores."""
    if isinstance(part, Int4Linear):
        rows = up_to(part.out_features, CHANNELS_TOGETHER)
        groups = part.in_features // part.groupsize
        yield Form.PACKED, part.weight, rows * part.in_features // 2
        yield Form.TRANSPOSED, part.scales, rows * groups * itemsize
        if isinstance(part, Int8DynActInt4WeightLinear):
            yield Form.SUMS, part.weight, rows * groups * 4
        if part.bias is not None:
            yield Form.PLAIN, part.bias, rows * itemsize
    elif isinstance(part, QuantizedGroupEmbedding) and part.bit_width == 4:
        rows = up_to(part.vocab_size, CHANNELS_TOGETHER)
        yield Form.PACKED, part.weight, rows * part.embedding_dim // 2
        yield Form.PLAIN, part.scales, part.scales.numel() * itemsize
    elif isinstance(part, CpuTable):
        yield Form.PACKED, part.weight, part.weight.numel() // 2
        yield Form.PLAIN, part.scales, part.scales.numel() * 4
    elif isinstance(part, QuantizedGroupEmbedding):
        yield Form.DEQUANTIZED, part.weight, part.weight.numel() * itemsize
    else:
        yield from _plain_tensors(part, itemsize)


def _on_cpu(part: nn.Module) -> Iterator[tuple[Form, torch.Tensor, int]]:
    """As `xnnpack.delegated_linears` and `xnnpack.embedding` have them."""
    if isinstance(part, Int4Linear):
        yield Form.PACKED, part.weight, part.weight.numel() // 2
        yield Form.BFLOAT16, part.scales, part.scales.numel() * 2
        if part.bias is not None:
            yield Form.FLOAT32, part.bias, part.bias.numel() * 4
    elif isinstance(part, QuantizedGroupEmbedding) and part.bit_width == 4:
        yield Form.PACKED, part.weight, part.weight.numel() // 2
        yield Form.PLAIN, part.scales, part.scales.numel() * 4
    elif isinstance(part, Int8DynActInt8WeightLinear | QuantizedGroupEmbedding):
        yield Form.PLAIN, part.weight, part.weight.numel()
        yield Form.PLAIN, part.scales, part.scales.numel() * 4
    else:
        yield from _plain_tensors(part, 4)


def _plain_tensors(part: nn.Module, itemsize: int) -> Iterator[tuple[Form, torch.Tensor, int]]:
    """The part's own tensors, unchanged, except caches, which are not constants."""
    own = [*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)]
    for name, tensor in own:
        if name not in _CACHES:
            size = itemsize if tensor.is_floating_point() else tensor.element_size()
            yield Form.PLAIN, tensor, prod(tensor.shape) * size
