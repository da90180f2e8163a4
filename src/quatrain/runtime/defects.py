"""The known defects of the phone's kernels that the runtimes here can emulate.

Those that begin with dq8ca concern `et_vk.linear_dq8ca_q4gsw`, the 8da4w linear, in the calls in
which it quantizes activations (see `quatrain.arithmetic`); weight-only programs are not affected.
They are emulated whether or not the program triggers them, to show their effect; the other defects
are emulated only if the program triggers them. The defective kernels are in
`reference/defective_kernels.py` and in `wgpu`.
"""

import math
from enum import StrEnum
from typing import TYPE_CHECKING

from quatrain.errors import InputError

if TYPE_CHECKING:
    from quatrain.program import Operator, VulkanGraph


class EmulatedDefect(StrEnum):
    """Ids of the catalogue of defects (`quatrain.targets`), as users write them."""

    FLOAT_ZERO_POINTS = "dq8ca-zp-binding-float"
    INT8_ZERO_POINTS = "dq8ca-zp-binding-int8"
    MORE_ROWS_THAN_SUMS = "dq8ca-m-gt-k"
    GROUP_SUMS = "dq8ca-group-sums"
    HEIGHT_PACKED_EMBEDDING = "embedding-height-packed"

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
    EmulatedDefect.GROUP_SUMS: (
        "sums of activations over groups above 128 count their first part twice"
    ),
    EmulatedDefect.HEIGHT_PACKED_EMBEDDING: (
        "of each four tokens the first one's embedding serves all four"
    ),
}


def is_misreadable_embedding(graph: "VulkanGraph", operator: "Operator") -> bool:
    """Whether `operator` of `graph` is a lookup that HEIGHT_PACKED_EMBEDDING strikes."""
    is_lookup = operator.kind == "aten.embedding"
    return is_lookup and graph.tensor(operator.out).layout == "height_packed"


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

    It has one per four input channels and group where it needs one per four rows; in fp16 half as
    many. Source: https://github.com/pytorch/executorch/issues/21423
    """
    return (columns // group_size) * math.ceil(columns / 4) // (2 if fp16 else 1)


def sum_multiplicity(group_size: int) -> list[int]:
    """How often the packing shader counts each four adjacent values of a group in the group's sum.

    32 workers, or 16 for groups below 128, take every 32nd (16th) four; from one to the next a
    worker adds its sum to itself. So all counts are 1 up to groups of 128, except 65 to 127.
    Source: `ops/glsl/quantize_and_pack_4h4w_with_group_sums.glsl` and, for the workers,
    `pick_quantize_and_pack_4h4w_with_group_sums_shader` of ExecuTorch's Vulkan runtime.
    """
    workers = 32 if group_size >= 128 else 16
    blocks = group_size // 4
    return [2 ** ((blocks - 1 - block) // workers) for block in range(blocks)]
