"""A quantized linear of another format, and the requantization of what the layout cannot hold.

GPTQ, AWQ, compressed-tensors, MLX and torchao all store `(value - zero) * scale` per group of input
features; each reader says where those are, and `in_layout` what may become of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch

from quatrain.checkpoint.files.lazy_tensors import RowsOf, StoredTensor
from quatrain.errors import InputError

USUAL_GROUP_SIZE = 32  # of linears that no group size is known of


class RoundAgain(Protocol):
    """Requantizes linears that the layout cannot hold.

    `asymmetric`: whether it also accepts linears with zero points or in act-order; it always
    accepts linears of more than 4 bits or in floating point. `group_sizes`: those that the
    layers may have, the smallest first; other linears are requantized. The same linear may be
    given more than once, and must give the same result.
    """

    asymmetric: bool
    group_sizes: tuple[int, ...]

    def __call__(
        self, name: str, rows_of: RowsOf, shape: tuple[int, ...], group_size: int | None, why: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """int8 [..., K] and float32 scales [..., K / group size] of the linear `name` of that
        shape [..., K]; without a group size int8 by row, with scales [...]. `why`: what it was."""
        ...


def rounded_when_read(
    name: str,
    shape: tuple[int, ...],
    groups: tuple[int, ...],
    rounded: Callable[[], tuple[torch.Tensor, torch.Tensor]],
    whose: str,
) -> dict[str, StoredTensor]:
    """F.weight int8 of `shape` and F.scales float32 of the shape `groups` of the linear F called
    `name`, which `rounded` gives together. The scales are kept: an eighth of the values' bytes.

    Where `rounded` raises ValueError, reading them raises `InputError`, which begins with `whose`.
    """
    kept: list[torch.Tensor] = []

    def weight() -> torch.Tensor:
        try:
            values, made = rounded()
        except ValueError as error:
            raise InputError(f"{whose} {error}; the file is damaged") from error
        kept[:] = [made]
        return values

    def scales() -> torch.Tensor:
        if not kept:
            weight()
        return kept[0]

    return {
        f"{name}.weight": StoredTensor(shape, torch.int8, weight),
        f"{name}.scales": StoredTensor(groups, torch.float32, scales),
    }


@dataclass(frozen=True)
class GroupedLinear:
    """One quantized matrix [N, K] in G groups a row; its values are read only when they are called.

    `values` gives int8 [N, K]; `scales` [N, G] in `scales_dtype`; `zeros`, if the file has them,
    [N, G] of the values' kind, 0 for a symmetric group; `group_of`, if the file has it, int64 [K]:
    the group of each input feature, `arange(K) // (K / G)` unless it is act-order.
    `bits`: of a value, as the file says.
    """

    shape: tuple[int, int]
    groups: int
    scales_dtype: torch.dtype
    values: Callable[[], torch.Tensor]
    scales: Callable[[], torch.Tensor]
    zeros: Callable[[], torch.Tensor] | None = None
    group_of: Callable[[], torch.Tensor] | None = None
    bits: int = 4

    @property
    def fits_int4(self) -> bool:
        """Whether its integers have at most four bits."""
        return self.bits <= 4
