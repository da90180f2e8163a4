"""The arithmetic of a program: its activations' type, and how its 8da4w linears compute.

ExecuTorch's Vulkan delegate quantizes activations only in calls of two rows or more: a linear with
one row takes a kernel that multiplies the floating-point activation with dequantized weights, as
weight-only does. So decode never quantizes activations, nor does the output layer, which sees only
the last token; on a GPU without integer dot products no linear does. XNNPACK quantizes every row.
Sources: `is_gemv` and `pick_linear_dqa_qw_shader` in
`backends/vulkan/runtime/graph/ops/impl/QuantizedLinear.cpp`, and `SMALL_SCALE_THRESHOLD` in
`ops/glsl/choose_qparams_per_row.glsl`, of ExecuTorch 1.0 to 1.5; tests/runtime/test_conformance.py
compares it with the real runtime.

In float16 the weight-only linear's kernel of prompts also sums in float16, one product after the
other (`q4gsw_linear_gemm__tin__w_4x8.glsl`, from 1.4 on); other kernels do only in buffers, which
`quatrain.runtime.reference` implements.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

Backend = Literal["vulkan", "xnnpack"]
ActivationDtype = Literal["fp32", "fp16"]
KvCache = Literal[
    "int8"
]  # the type of keys and values in the cache, if it differs from the activations'


@dataclass(frozen=True)
class Arithmetic:
    """How a runtime computes int4 linears; `name` is for people.

    `least_quantized_rows`: the fewest rows (tokens of a call) from which on activations are
    quantized to int8; None: never. `smallest_scale`: of an activation's int8; a row that needs a
    smaller one is rounded with this, its zero point being that of its own range. `half_sums`:
    whether weight-only linears in float16 sum in it, from two rows on. `asked_for`: whether
    somebody asked for this one, so that a runtime that computes otherwise must not run.
    """

    name: str
    least_quantized_rows: int | None
    smallest_scale: float
    half_sums: bool = False
    asked_for: bool = field(default=False, compare=False)

    def quantizes(self, rows: int) -> bool:
        """Whether an 8da4w linear quantizes an activation of `rows` rows."""
        return self.least_quantized_rows is not None and rows >= self.least_quantized_rows


# torchao's smallest scale, that of float32.
XNNPACK_ARITHMETIC = Arithmetic("XNNPACK", 1, 1.1920928955078125e-07)
VULKAN_ARITHMETIC = Arithmetic("Vulkan", 2, 6.1e-5, half_sums=True)
VULKAN_WITHOUT_DOT_PRODUCTS = Arithmetic(
    "Vulkan without integer dot products", None, VULKAN_ARITHMETIC.smallest_scale, half_sums=True
)
# Of one row, where many rows, each decoded by itself on a phone, are computed at once.
VULKAN_OF_ONE_ROW = replace(VULKAN_WITHOUT_DOT_PRODUCTS, half_sums=False)
# By the backend that a program was exported for.
ARITHMETIC_OF: dict[Backend, Arithmetic] = {
    "vulkan": VULKAN_ARITHMETIC,
    "xnnpack": XNNPACK_ARITHMETIC,
}
