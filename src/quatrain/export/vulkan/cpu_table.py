"""A table whose rows are read on the CPU and passed to the Vulkan delegate.

That of the per-layer embeddings of a Gemma is as large as all else together, and a call reads a row
of it for each token. In a delegate all constants go into GPU memory; outside of it the file stays
mapped, and a phone holds the pages that were read.
"""

import torch
from torch import nn

from quatrain.linear.embedding import QuantizedGroupEmbedding
from quatrain.linear.packing import pack_int4


class CpuTable(nn.Module):
    """The int4 embedding `table`, not packed yet: weight int8 [rows, width], scales [rows, groups]
    float32."""

    weight: torch.Tensor
    scales: torch.Tensor

    def __init__(self, table: QuantizedGroupEmbedding) -> None:
        super().__init__()
        self.register_buffer("weight", table.weight)
        self.register_buffer("scales", table.scales)


class PackedCpuTable(nn.Module):
    """The same as `quantized_decomposed::embedding_4bit`, one operator.

    The overload with a dtype would be moved into the delegate by Vulkan's partitioner
    (`register_quantized_decomposed_embedding_4bit` of op_registry.py); this one it leaves outside.
    `packed` uint8 [rows, width / 2]: the even column in the high half of a byte, as in that kernel
    but not in the linears.
    """

    packed: torch.Tensor
    scales: torch.Tensor

    def __init__(self, table: CpuTable) -> None:
        super().__init__()
        packed = pack_int4(table.weight)
        self.register_buffer("packed", (packed << 4) | (packed >> 4))
        self.register_buffer("scales", table.scales)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return torch.ops.quantized_decomposed.embedding_4bit.default(
            self.packed, self.scales, None, -8, 7, tokens
        )
