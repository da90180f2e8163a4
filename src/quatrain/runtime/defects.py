"""The known defects of the phone's int4 linear that the runtimes here can emulate.

All concern `et_vk.linear_dq8ca_q4gsw`, the 8da4w linear; weight-only programs meet none of them.
A defect is emulated whether or not the program would trigger it, to show what it does. What the
broken kernel computes stands in `reference/defective_linear.py` and in `wgpu/rows.py`.
"""

import math
from enum import StrEnum

from quatrain.errors import InputError


class EmulatedDefect(StrEnum):
    """Ids of the catalogue of defects (`quatrain.targets`), as users write them."""

    FLOAT_ZERO_POINTS = "dq8ca-zp-binding-float"
    INT8_ZERO_POINTS = "dq8ca-zp-binding-int8"
    MORE_ROWS_THAN_SUMS = "dq8ca-m-gt-k"

    @property
    def effect(self) -> str:
        """What the broken kernel does, in a phrase."""
        return _EFFECTS[self]


_EFFECTS = {
    EmulatedDefect.FLOAT_ZERO_POINTS: "negative zero points -k are read as -2^23 - k",
    EmulatedDefect.INT8_ZERO_POINTS: "zero points saturate to -128 or 127",
    EmulatedDefect.MORE_ROWS_THAN_SUMS: (
        "the zero-point correction is lost past the end of a buffer sized by K"
    ),
}


def emulated_defect(name: str | None) -> EmulatedDefect | None:
    """The defect called `name`; `InputError` for an unknown one, naming those there are."""
    if name is None:
        return None
    if name not in tuple(EmulatedDefect):
        known = "; ".join(f"{defect} ({defect.effect})" for defect in EmulatedDefect)
        raise InputError(f"--emulate {name}: cannot be emulated; known are: {known}")
    return EmulatedDefect(name)


def sums_capacity(columns: int, group_size: int, fp16: bool) -> int:
    """How many blocks of four rows, over all groups, the undersized buffer of sums holds.

    It has one per four input channels and group where it needs one per four rows; in fp16 it
    is half as long again. Source: https://github.com/pytorch/executorch/issues/21423
    """
    return (columns // group_size) * math.ceil(columns / 4) // (2 if fp16 else 1)
