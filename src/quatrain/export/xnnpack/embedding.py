"""Quantized embeddings as ExecuTorch's CPU kernels take them."""

from typing import ClassVar

import torch
from torch import nn

from quatrain.linear.embedding import QuantizedGroupEmbedding
from quatrain.linear.packing import pack_int4
from quatrain.program.edit.constant_source import ConstantSource, Form


class ByteEmbedding(nn.Module):
    """An int8 embedding as `quantized_decomposed::embedding_byte`.

    Buffers: `weight` int8 [vocab_size, dim]; `scales` as in the embedding.
    """

    def __init__(self, embedding: QuantizedGroupEmbedding) -> None:
        super().__init__()
        self.register_buffer("weight", embedding.weight)
        self.register_buffer("scales", embedding.scales)
        self.dtype = embedding.dtype

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.ops.quantized_decomposed.embedding_byte.dtype(
            self.weight, self.scales, None, -128, 127, tokens, dtype=self.dtype
        )


class NibbleEmbedding(nn.Module):
    """An int4 embedding as `quantized_decomposed::embedding_4bit`.

    Buffers: `packed` uint8 [vocab_size, dim/2]; `scales` as in the embedding. `packed` is in the
        order of the linears' weights, so that a tied output layer shares its bytes; the kernel
        reads each byte's halves in the opposite order, which is corrected in the resulting rows.
    """

    sources: ClassVar[dict[str, ConstantSource]] = {"packed": ConstantSource(Form.PACKED, "weight")}

    def __init__(self, embedding: QuantizedGroupEmbedding) -> None:
        super().__init__()
        self.register_buffer("packed", pack_int4(embedding.weight))
        self.register_buffer("scales", embedding.scales)
        self.dtype = embedding.dtype

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        swapped = torch.ops.quantized_decomposed.embedding_4bit.dtype(
            self.packed, self.scales, None, -8, 7, tokens, dtype=self.dtype
        )
        return swapped.unflatten(-1, (-1, 2)).flip(-1).flatten(-2)


def to_cpu_embedding(backbone: nn.Module) -> None:
    """Replace, in place, each quantized embedding of `backbone`."""
    for parent in list(backbone.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, QuantizedGroupEmbedding):
                form = NibbleEmbedding if child.bit_width == 4 else ByteEmbedding
                setattr(parent, name, form(child))
