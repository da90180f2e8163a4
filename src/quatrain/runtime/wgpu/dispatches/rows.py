"""What is done to whole rows of an activation: norms and the quantization for int8 linears.

One dispatch makes a row (the sum of a residual connection, a gated activation), normalizes it and
quantizes it, where the graph asks for these in a row.
"""

from dataclasses import dataclass

from quatrain.arithmetic import VULKAN_ARITHMETIC
from quatrain.runtime.defects import EmulatedDefect
from quatrain.runtime.wgpu.dispatches.dispatch import (
    Dispatch,
    Operand,
    Traits,
    ceil_div,
    dispatch,
    per_row,
    spread_grid,
)

# WGSL of what reads back of a zero point `chosen`, by the defect that is emulated.
_READ_ZERO: dict[EmulatedDefect | None, str] = {
    EmulatedDefect.FLOAT_ZERO_POINTS: "select(chosen, chosen - 8388608.0, chosen < 0.0)",
    EmulatedDefect.INT8_ZERO_POINTS: "select(127.0, -128.0, chosen < 0.0)",
}


@dataclass(frozen=True)
class Join:
    """How x is made, of two operands of its size: WGSL over `a` and `b`."""

    expression: str
    a: Operand
    b: Operand


@dataclass(frozen=True)
class Norm:
    """y [M, K] = x / sqrt(mean(x^2) + eps) * weight [K], computed in f32."""

    weight: Operand
    eps: float
    y: Operand


@dataclass(frozen=True)
class Quantized:
    """An activation [M, K] in int8: `packed` u32 [M, ceil(K/8)*2], and per row `scale`, `zero`."""

    packed: Operand
    scale: Operand
    zero: Operand


@dataclass(frozen=True)
class Row:
    """The rows x [M, K] and what is done to them: made by `join`, normalized into `norm.y`, and
    the last of these `quantized`."""

    x: Operand
    join: Join | None = None
    norm: Norm | None = None
    quantized: Quantized | None = None

    def dispatch(self, traits: Traits, defect: EmulatedDefect | None = None) -> Dispatch:
        """One workgroup per row. `defect`: one to emulate."""
        join, norm, quantized = self.join, self.norm, self.quantized
        x = self.x
        buffers = [("x", "read_write" if join else "read", x.dtype, x)]
        constants = {
            "T": x.dtype, "K": x.shape[-1], "JOIN": join.expression if join else "",
            "NORM": norm is not None, "QUANTIZE": quantized is not None,
            "WORKGROUP": 32 if traits.cpu else 128,
        }  # fmt: skip
        if join:
            buffers += [
                (f"{name}_in", "read", o.dtype, o) for name, o in (("a", join.a), ("b", join.b))
            ]
        if norm:
            buffers += [
                ("weight", "read", norm.weight.dtype, norm.weight),
                ("y", "read_write", norm.y.dtype, norm.y),
            ]
            constants["EPS"] = norm.eps
        if quantized:
            buffers += [
                ("x_scale", "read_write", quantized.scale.dtype, quantized.scale),
                ("x_zero", "read_write", "i32", quantized.zero),
                ("packed", "read_write", "vec2<u32>", quantized.packed),
            ]
            constants |= {
                "X_SCALE": quantized.scale.dtype, "SMALLEST": VULKAN_ARITHMETIC.smallest_scale,
                "READ_ZERO": _READ_ZERO.get(defect, "chosen"),
            }  # fmt: skip
        return dispatch(
            "row",
            [operand for *_, operand in buffers],
            (x.rows,),
            lambda p: spread_grid(p[0]),
            **constants,
            BUFFERS=tuple(buffer[:3] for buffer in buffers),
        )


def quantize_activation(x: Operand, out: Quantized) -> Dispatch:
    """Packs x with the scales and zero points that `out` holds already."""
    k = x.shape[-1]
    return per_row(
        "quantize_activation", [x, out.scale, out.zero, out.packed], (x.rows,), ceil_div(k, 8),
        T=x.dtype, K=k, X_SCALE=out.scale.dtype,
    )  # fmt: skip
