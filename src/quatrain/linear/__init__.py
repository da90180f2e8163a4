"""The quantized layers that replace a backbone's linears and embedding.

Their buffers are the pre-quantized layout of a checkpoint, so one state dict loads into
either activation scheme.
"""

from quatrain.linear.embedding import QuantizedGroupEmbedding
from quatrain.linear.int4 import Int4Linear, Int8DynActInt4WeightLinear, WeightOnlyInt4Linear
from quatrain.linear.int8 import Int8DynActInt8WeightLinear

__all__ = [
    "Int4Linear",
    "Int8DynActInt4WeightLinear",
    "Int8DynActInt8WeightLinear",
    "QuantizedGroupEmbedding",
    "WeightOnlyInt4Linear",
]
