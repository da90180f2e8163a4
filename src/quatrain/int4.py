"""Definitions of int4: its range, its group sizes, and the two activation schemes."""

from enum import StrEnum

INT4_MIN, INT4_MAX = -8, 7
# Weights that share a scale: the sizes that Vulkan's kernels take.
GROUP_SIZES = (16, 32, 64, 128, 256)
# XNNPACK's: multiples of 32.
XNNPACK_GROUP_SIZES = GROUP_SIZES[1:]
# Output channels that a Vulkan kernel computes together: ExecuTorch 1.4 and later do not load a
# weight-only linear of another multiple. Source: `impl/Q4gswLinear.cpp` of its Vulkan runtime.
CHANNELS_TOGETHER = 4
# What the columns of an 8da4w linear's weights, and of any int4 linear's up to ExecuTorch 1.3, are
# filled up to a multiple of: it loads no others. Source: `impl/QuantizedLinear.cpp` there.
INPUTS_TOGETHER = 8
# Values of a row that Vulkan's embedding reads together: it loads no other multiple. Source:
# `impl/EmbeddingQ4gsw.cpp` there.
EMBEDDED_TOGETHER = 32


class Scheme(StrEnum):
    """The activation scheme of int4 linears; the values are the names that users write."""

    DYNAMIC_INT8 = "8da4w"  # activations quantized per token to int8, as the program runs
    WEIGHT_ONLY = "weight-only"  # floating-point activations, dequantized weights
