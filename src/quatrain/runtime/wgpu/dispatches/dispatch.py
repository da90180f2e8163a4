"""What a dispatch is: a kernel, the constants it is compiled with, and its operands."""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from quatrain.multiples import up_to

# The types of stored operands: WGSL's names and numpy's types.
NUMPY = {
    "f32": np.dtype("float32"), "f16": np.dtype("float16"), "i32": np.dtype("int32"),
    "u32": np.dtype("uint32"), "u8": np.dtype("uint8"),
}  # fmt: skip


_LANES = 64  # of a workgroup, where nothing asks for another number


@dataclass(frozen=True)
class Traits:
    """What of a device decides which kernel serves.

    `cpu`: the adapter computes on the CPU (llvmpipe), where a load costs one scalar access per
    lane and there are few cores to fill. `spread`: a value can be handed to the seven
    neighbours of a lane by subgroup broadcast.
    """

    cpu: bool
    spread: bool


# What names a piece of memory: ("constant", its key in the file, its type), ("value", its id), ...
Key = tuple[Hashable, ...]


@dataclass(frozen=True)
class Operand:
    """A tensor on the device, contiguous: `key` names its memory, `dtype` is one of `NUMPY`."""

    key: Key
    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The size in bytes, rounded up to the 16 that a kernel's widest load needs."""
        return max(16, up_to(self.count * NUMPY[self.dtype].itemsize, 16))

    @property
    def rows(self) -> int:
        """The product of all dimensions but the last: tokens, for an activation."""
        return math.prod(self.shape[:-1])


@dataclass(frozen=True)
class Symbol:
    """A number known only as a step begins: the graph's SymInt value `value_id`."""

    value_id: int


Params = tuple[int, int, int, int]
Grid = tuple[int, int, int]


@dataclass(frozen=True)
class Dispatch:
    """One dispatch of kernels/`kernel`.wgsl.

    `constants` are compiled in; `params` are the four u32 at binding 0; `operands` are bound
    from binding 1. `grid` gives the number of workgroups from the resolved params.
    """

    kernel: str
    constants: tuple[tuple[str, Any], ...]
    operands: tuple[Operand, ...]
    params: tuple[int | Symbol, ...]
    grid: Callable[[Params], Grid]


def dispatch(
    kernel: str,
    operands: list[Operand],
    params: tuple[int | Symbol, ...],
    grid: Callable[[Params], Grid],
    **constants: Any,
) -> Dispatch:
    """A `Dispatch`, with `params` filled up with zeros to four."""
    filled = (*params, 0, 0, 0, 0)[:4]
    return Dispatch(kernel, tuple(constants.items()), tuple(operands), filled, grid)


def per_element(
    kernel: str, operands: list[Operand], params: tuple[int | Symbol, ...], **constants: Any
) -> Dispatch:
    """A lane for each of as many elements as the first of `params` says."""
    return dispatch(
        kernel, operands, params, lambda p: spread_grid(ceil_div(p[0], _LANES)), **constants,
        WORKGROUP=_LANES,
    )  # fmt: skip


def per_row(
    kernel: str,
    operands: list[Operand],
    params: tuple[int | Symbol, ...],
    width: int,
    **constants: Any,
) -> Dispatch:
    """A lane for each of `width` elements of each of as many rows as the first of `params` says."""
    groups = ceil_div(width, _LANES)
    return dispatch(
        kernel, operands, params, lambda p: (groups, *spread_grid(p[0])[:2]), **constants,
        WORKGROUP=_LANES,
    )  # fmt: skip


def ceil_div(a: int, b: int) -> int:
    """`a` / `b` rounded up."""
    return -(-a // b)


def spread_grid(groups: int) -> Grid:
    """At least `groups` workgroups over two dimensions: one ends at 65535."""
    wide = max(1, min(groups, 32768))
    return wide, ceil_div(groups, wide), 1
