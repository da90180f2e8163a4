"""Quantized layers as the Vulkan operators that they become, on constants as those are stored.

Traced like this a linear is one operator on packed weights, in place of a dequantization and a
matrix product for ExecuTorch to find and fuse; lowering takes a quarter of the time. That the
result is the same is a test (`tests/export/test_stamp.py`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import executorch.backends.vulkan.custom_ops_lib  # noqa: F401  (registers torch.ops.et_vk.*)
import torch
import torch.nn.functional as F
from executorch.backends.vulkan.op_registry import vulkan_supported_ops
from executorch.backends.vulkan.patterns import pattern_registry
from executorch.exir.dialects._ops import ops as exir_ops
from torch import nn

from quatrain.linear import Int8DynActInt4WeightLinear, QuantizedGroupEmbedding
from quatrain.linear.affine import choose_token_qparams
from quatrain.linear.int4 import Int4Linear
from quatrain.linear.packing import group_sums, pack_int4


class PackedLinear(nn.Module):
    """An int4 linear as `et_vk::linear_dq8ca_q4gsw` or `et_vk::linear_q4gsw`.

    Buffers: `packed` uint8 [N, K/2]; `scales` [K/group, N padded to 4]; `bias` [N padded to 4]
    or None; for dynamic activations `sums` int32 [K/group, N padded to 8].
    """

    # Buffer -> what it is made of: form and tensor, as `export.constants` names them.
    sources: ClassVar[dict[str, str]] = {
        "packed": "packed:weight",
        "sums": "sums:weight",
        "scales": "transposed:scales",
        "bias": "plain:bias",
    }

    def __init__(self, linear: Int4Linear, dynamic: bool) -> None:
        super().__init__()
        self.group_size = linear.groupsize
        self.dynamic = dynamic
        self.register_buffer("packed", pack_int4(linear.weight))
        if self.dynamic:
            self.register_buffer("sums", _padded(group_sums(linear.weight, self.group_size), 8))
        self.register_buffer("scales", _padded(linear.scales.T, 4))
        self.register_buffer("bias", None if linear.bias is None else _padded(linear.bias, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rest = (self.scales, self.group_size, self.bias)
        if not self.dynamic:
            return torch.ops.et_vk.linear_q4gsw.default(x, self.packed, *rest)
        scale, zero_point = choose_token_qparams(x, eps=torch.finfo(torch.float32).eps)
        return torch.ops.et_vk.linear_dq8ca_q4gsw.default(
            x, scale, zero_point, self.packed, self.sums, *rest
        )


class PackedEmbedding(nn.Module):
    """An int4 embedding as `et_vk::embedding_q4gsw`.

    Buffers: `packed` uint8 [vocab_size, dim/2], `scales` [vocab_size, dim/group].
    """

    sources: ClassVar[dict[str, str]] = {"packed": "packed:weight", "scales": "plain:scales"}

    def __init__(self, embedding: QuantizedGroupEmbedding) -> None:
        super().__init__()
        self.group_size = embedding.group_size
        self.register_buffer("packed", pack_int4(embedding.weight))
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
    sources: ClassVar[dict[str, str]] = {"weight": "dequantized:weight"}

    def __init__(self, embedding: QuantizedGroupEmbedding) -> None:
        super().__init__()
        self.register_buffer("weight", embedding.dequantized_weight())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.embedding(tokens, self.weight)


def pack_layers(module: nn.Module, dynamic: bool = False) -> None:
    """Replace, in place, each int4 linear and quantized embedding below `module` by the form in
    which Vulkan's kernels take it; with `dynamic`, every linear by that of 8da4w."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, Int4Linear):
                is_dynamic = isinstance(child, Int8DynActInt4WeightLinear)
                setattr(parent, name, PackedLinear(child, dynamic or is_dynamic))
            elif isinstance(child, QuantizedGroupEmbedding):
                packed = PackedEmbedding if child.bit_width == 4 else DequantizedEmbedding
                setattr(parent, name, packed(child))


@contextmanager
def ready_for_packed_layers() -> Iterator[None]:
    """Let ExecuTorch's Vulkan partitioner take graphs that hold these operators already.

    It checks a linear's dtypes on the unfused graph, where weights are not packed yet, and
    before each partition compiles examples of rotary embeddings to look for, which takes
    seconds and finds nothing here. Nor is there attention to fuse with the update of its cache:
    one without is a layer's that reads another's cache. And each pass would ask the Python of
    torchao's quantization for the shapes of its results, which takes seconds.
    """
    edge: Any = exir_ops.edge
    linears = [
        vulkan_supported_ops[edge.et_vk.linear_q4gsw.default],
        vulkan_supported_ops[edge.et_vk.linear_dq8ca_q4gsw.default],
    ]
    any_dtype = vulkan_supported_ops[edge.torchao.choose_qparams_affine.default]
    dtypes = [features.inputs_dtypes for features in linears]
    patterns = dict(pattern_registry.fusable_patterns)
    try:
        for features in linears:
            features.inputs_dtypes = any_dtype.inputs_dtypes
        for name in ("export_llama_rope", "hf_rope", "causal_sdpa"):
            pattern_registry.fusable_patterns.pop(name, None)
        with _shapes_of_token_qparams():
            yield
    finally:
        for features, saved in zip(linears, dtypes, strict=True):
            features.inputs_dtypes = saved
        pattern_registry.fusable_patterns.update(patterns)


@contextmanager
def _shapes_of_token_qparams() -> Iterator[None]:
    """Let `torchao::choose_qparams_affine` of tokens x [..., K] answer with empty results [...].

    torch takes no shape function for an operator that is defined as other operators, so that
    the definition itself is replaced; nothing computes values while this holds.
    """

    def empty(x: torch.Tensor, *_: object, **__: object) -> tuple[torch.Tensor, torch.Tensor]:
        return x.new_empty(x.shape[:-1]), x.new_empty(x.shape[:-1])

    with torch.library._scoped_library("torchao", "IMPL") as library:
        name, key = "choose_qparams_affine", "CompositeImplicitAutograd"
        library.impl(name, empty, key, allow_override=True)
        yield


def _padded(tensor: torch.Tensor, multiple: int) -> torch.Tensor:
    """`tensor`, contiguous, its last dimension filled with zeros up to a multiple."""
    return F.pad(tensor, (0, -tensor.shape[-1] % multiple)).contiguous()


def _like_rows(x: torch.Tensor, packed: torch.Tensor) -> torch.Tensor:
    return x.new_empty((*x.shape[:-1], packed.shape[0]))


# Shapes of the operators' results. Without these, tracing and every pass run the operators'
# Python decompositions on symbolic shapes, a hundred times slower.
_SHAPES = {
    "linear_q4gsw": lambda x, packed, *_: _like_rows(x, packed),
    "linear_dq8ca_q4gsw": lambda x, scale, zero, packed, *_: _like_rows(x, packed),
    "embedding_q4gsw": lambda packed, scales, group, tokens, *_: scales.new_empty(
        (*tokens.shape, packed.shape[1] * 2)
    ),
    "rms_norm": lambda x, *_: torch.empty_like(x),
    "apply_rotary_emb": lambda q, k, *_: (torch.empty_like(q), torch.empty_like(k)),
    "apply_rotary_emb_hf": lambda q, k, *_: (torch.empty_like(q), torch.empty_like(k)),
}
_library = torch.library.Library("et_vk", "IMPL", "Meta")
for _name, _shape in _SHAPES.items():
    _library.impl(_name, _shape)
