"""The additional size of a Vulkan program that is written in ExecuTorch 1.2's operators.

Each figure is the number of bytes that one more item adds, as in `vulkan_overhead`: the operators
that `program.edit.older_operators` writes for it, with their results. A test compares them with
exports.
"""

from quatrain.backbone.model import Backbone
from quatrain.export.plan.vulkan_overhead import quantized_inputs
from quatrain.export.vulkan.operator_modules import VulkanHalfSplitRotary, VulkanRMSNorm
from quatrain.linear import Int4Linear, QuantizedGroupEmbedding

_USUAL, _NORM, _BIAS = 440, 670, 226
_TABLES, _ROTATED, _CUT_AND_JOINED = 513, 768, 460  # rows of cos and sin; queries, or keys, turned
_QPARAMS, _GRAPH_OF_PROMPTS = -54, -386  # chosen in every call


def older_constants(backbone: Backbone, itemsize: int) -> int:
    """The bytes of an int4 embedding's table in floating point, which is stored in addition to the
    int4 table."""
    tables = (
        part
        for part in backbone.modules()
        if isinstance(part, QuantizedGroupEmbedding) and part.bit_width == 4
    )
    return sum(part.vocab_size * part.embedding_dim * itemsize for part in tables)


def older_overhead(backbone: Backbone) -> int:
    """The bytes of additional operators and values."""
    parts = list(backbone.modules())
    biased = [part for part in parts if isinstance(part, Int4Linear) and part.bias is not None]
    quantized = quantized_inputs(backbone)
    rotated = 2 * sum(isinstance(part, VulkanHalfSplitRotary) for part in parts)
    norms = sum(isinstance(part, VulkanRMSNorm) for part in parts)
    total = _USUAL + _NORM * norms + _BIAS * len(biased) + _TABLES * (rotated > 0)
    total += (_ROTATED + _CUT_AND_JOINED * _turns_a_part(backbone)) * rotated
    return total + (_GRAPH_OF_PROMPTS + _QPARAMS * quantized if quantized else 0)


def _turns_a_part(backbone: Backbone) -> bool:
    return backbone.config.partial_rotary_factor < 1
