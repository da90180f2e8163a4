"""Quantized layers as the Vulkan operators that they become, with constants as stored.

Traced like this a linear is one operator on packed weights, in place of a dequantization and a
matrix product for ExecuTorch to find and fuse; lowering takes a quarter of the time. That the
result is the same is a test (`tests/export/vulkan/test_replicated_layers.py`).
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from quatrain.export.vulkan.cpu_table import CpuTable, PackedCpuTable
from quatrain.int4 import CHANNELS_TOGETHER
from quatrain.linear import Int4Linear, Int8DynActInt4WeightLinear, QuantizedGroupEmbedding
from quatrain.linear.affine import choose_token_qparams
from quatrain.linear.packing import group_sums, pack_int4_for_vulkan
from quatrain.program.edit.constant_source import ConstantSource, Form


class PackedLinear(nn.Module):
    """An int4 linear as `et_vk::linear_dq8ca_q4gsw` or `et_vk::linear_q4gsw`.

    Buffers: `packed` uint8 [N padded to 4, K/2]; `scales` [K/group, N padded to 4]; `bias` [N
    padded to 4] or None; for dynamic activations `sums` int32 [K/group, N padded to 4]. If N is not
    a multiple of 4 the operator computes some more channels, which are removed.
    """

    packed: torch.Tensor
    # Buffer -> its source: a tensor of the linear, in some form.
    sources: ClassVar[dict[str, ConstantSource]] = {
        "packed": ConstantSource(Form.PACKED, "weight"),
        "sums": ConstantSource(Form.SUMS, "weight"),
        "scales": ConstantSource(Form.TRANSPOSED, "scales"),
        "bias": ConstantSource(Form.PLAIN, "bias"),
    }

    def __init__(self, linear: Int4Linear, dynamic: bool, zero_points: torch.dtype) -> None:
        super().__init__()
        self.zero_points = zero_points
        self.group_size = linear.groupsize
        self.dynamic = dynamic
        self.out_features = linear.out_features
        self.register_buffer("packed", pack_int4_for_vulkan(linear.weight))
        if self.dynamic:
            sums = group_sums(linear.weight, self.group_size)
            self.register_buffer("sums", _padded(sums, CHANNELS_TOGETHER))
        self.register_buffer("scales", _padded(linear.scales.T, CHANNELS_TOGETHER))
        bias = None if linear.bias is None else _padded(linear.bias, CHANNELS_TOGETHER)
        self.register_buffer("bias", bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self._all_channels(x)
        if len(self.packed) == self.out_features:
            return y
        return torch.ops.aten.slice.Tensor(y, -1, 0, self.out_features)

    def _all_channels(self, x: torch.Tensor) -> torch.Tensor:
        rest = (self.scales, self.group_size, self.bias)
        if not self.dynamic:
            return torch.ops.et_vk.linear_q4gsw.default(x, self.packed, *rest)
        eps = torch.finfo(torch.float32).eps
        scale, zero_point = choose_token_qparams(x, eps, self.zero_points)
        return torch.ops.et_vk.linear_dq8ca_q4gsw.default(
            x, scale, zero_point, self.packed, self.sums, *rest
        )


class PackedEmbedding(nn.Module):
    """An int4 embedding as `et_vk::embedding_q4gsw`.

    Buffers: `packed` uint8 [vocab_size padded to 4, dim/2], padded so that a tied output shares
    it; `scales` [vocab_size, dim/group]. The dim is a multiple of `EMBEDDED_TOGETHER`.
    """

    sources: ClassVar[dict[str, ConstantSource]] = {
        "packed": ConstantSource(Form.PACKED, "weight"),
        "scales": ConstantSource(Form.PLAIN, "scales"),
    }

    def __init__(self, embedding: QuantizedGroupEmbedding) -> None:
        super().__init__()
        self.group_size = embedding.group_size
        self.register_buffer("packed", pack_int4_for_vulkan(embedding.weight))
        scales = embedding.scales.view(embedding.vocab_size, -1)
        self.register_buffer("scales", scales.contiguous())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        # True: nibbles in the order of the linears, so that a tied output shares the bytes.
        return torch.ops.et_vk.embedding_q4gsw.default(
            self.packed, self.scales, self.group_size, tokens, True
        )


class DequantizedEmbedding(nn.Module):
    """An int8 embedding as a floating-point table [vocab_size, dim], which Vulkan has a kernel
    for."""

    weight: torch.Tensor
    sources: ClassVar[dict[str, ConstantSource]] = {
        "weight": ConstantSource(Form.DEQUANTIZED, "weight")
    }

    def __init__(self, embedding: QuantizedGroupEmbedding) -> None:
        super().__init__()
        self.register_buffer("weight", embedding.dequantized_weight())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.embedding(tokens, self.weight)


def pack_layers(module: nn.Module, compile_options: dict[str, Any], dynamic: bool = False) -> None:
    """Replace, in place, each int4 linear and quantized embedding below `module` by the form in
    which Vulkan's kernels take it, to be compiled so; with `dynamic`, every linear by that of
    8da4w."""
    zero_points = _zero_point_dtype(compile_options)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Int4Linear):
                is_dynamic = isinstance(child, Int8DynActInt4WeightLinear)
                setattr(parent, name, PackedLinear(child, dynamic or is_dynamic, zero_points))
            elif isinstance(child, QuantizedGroupEmbedding):
                packed = PackedEmbedding if child.bit_width == 4 else DequantizedEmbedding
                setattr(parent, name, packed(child))
            elif isinstance(child, CpuTable):
                setattr(parent, name, PackedCpuTable(child))


def _zero_point_dtype(compile_options: dict[str, Any]) -> torch.dtype:
    """The type of the activations' zero points in a program compiled with these options. The
    shaders of every release support int8: those of 1.0 to 1.3 regardless of the stored type, those
    of 1.4 and later by its type (`choose_qparams_per_row.glsl`, `add_zp_dtype_mode_suffix`). But
    with half precision builds between the two read int8 as halves (dq8ca-zp-binding-int8), and no
    type is right everywhere; there they stay floating point.
    """
    return torch.float32 if compile_options["force_fp16"] else torch.int8


def _padded(tensor: torch.Tensor, multiple: int) -> torch.Tensor:
    """`tensor`, contiguous, its last dimension filled with zeros up to a multiple."""
    return F.pad(tensor, (0, -tensor.shape[-1] % multiple)).contiguous()
