"""The int4 linears of a graph, each around its weight unpacked to float32."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch

from quatrain.arithmetic import Arithmetic
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.program import Operator, VulkanGraph
from quatrain.program.vulkan.half_buffers import in_half_buffer
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS
from quatrain.program.vulkan.packed_weights import group_sums, stepped_over
from quatrain.runtime.defects import EmulatedDefect
from quatrain.runtime.reference.defective_kernels import defective_linear_dynamic
from quatrain.runtime.reference.quantized import (
    dense_weight,
    linear_dynamic,
    linear_dynamic_in_half,
    linear_in_half,
    linear_weight_only,
    unpack_int4,
)


class Int4Linears:
    """Makes the kernels of `graph`'s int4 linears; equal weights are unpacked once.

    `arithmetic`: how they are computed. `defect`: what they compute wrongly.
    """

    def __init__(
        self, graph: VulkanGraph, arithmetic: Arithmetic, defect: EmulatedDefect | None
    ) -> None:
        self.graph = graph
        self.arithmetic = arithmetic
        self.defect = defect
        self._dense: dict[tuple[Any, ...], torch.Tensor] = {}

    def kernel(
        self, operator: Operator, values: Sequence[Any]
    ) -> tuple[Callable[..., torch.Tensor], tuple[int, ...]]:
        """The kernel of `operator` and the ids of the arguments that it takes.

        `values` holds the graph's constants by id. Raises `InputError` if those of this linear are
        none.
        """
        names = operator.named_args
        columns = self.graph.tensor(names["x"]).shape[-1]
        group = self.graph.integer(names["group_size"])
        packed, weight_scales = values[names["weights"]], values[names["weight_scales"]]
        if not isinstance(packed, torch.Tensor) or not isinstance(weight_scales, torch.Tensor):
            raise InputError("an int4 linear's weights are not constants of the program")
        packed = packed[:, : columns // 2]
        weight_scales = as_read(weight_scales, columns // group, len(packed))
        dense = self._dense_weight(packed, weight_scales, group)
        if INT4_LINEARS[operator.kind] == Scheme.WEIGHT_ONLY:
            return self._weight_only(operator, dense), (names["x"], names["bias"])
        sums = values[names["weight_sums"]]
        if not isinstance(sums, torch.Tensor):
            raise InputError("an int4 linear's sums of groups are not constants of the program")
        linear = self._dynamic(operator, dense, packed, weight_scales, sums)
        arguments = ("x", "input_scales", "input_zero_points", "bias")
        return linear, tuple(names[name] for name in arguments)

    def _weight_only(self, operator: Operator, dense: torch.Tensor) -> Callable[..., torch.Tensor]:
        """`dense` is the result of `_dense_weight`."""

        def linear(x: Any, bias: Any) -> torch.Tensor:
            in_half = self.arithmetic.half_sums and x.dtype == torch.float16
            one_row = operator.row_by_row or x.numel() == x.shape[-1]
            compute = linear_in_half if in_half and not one_row else linear_weight_only
            return compute(x, dense, bias)

        return linear

    def _dynamic(
        self,
        operator: Operator,
        dense: torch.Tensor,
        packed: torch.Tensor,
        weight_scales: torch.Tensor,
        sums: torch.Tensor,
    ) -> Callable[..., torch.Tensor]:
        """`packed` uint8 [N, K / 2], `weight_scales` and `sums` [groups, N] as a phone reads
        them."""
        group = self.graph.integer(operator.named_args["group_size"])
        misread = cache(lambda: misread_sums(sums, packed, group))
        integers = None
        if in_half_buffer(self.graph, operator):
            integers = unpack_int4(packed).unflatten(-1, (-1, group))

        def linear(x: Any, scales: Any, zeros: Any, bias: Any) -> torch.Tensor:
            if not self.arithmetic.quantizes(rows=x.numel() // x.shape[-1]):
                return linear_weight_only(x, dense, bias)
            if self.defect is not None:
                return defective_linear_dynamic(
                    self.defect, x, scales, zeros, dense, bias, weight_scales, group, misread()
                )
            if integers is not None:
                return linear_dynamic_in_half(
                    x, scales, zeros, integers, weight_scales, bias, misread()
                )
            return linear_dynamic(x, scales, zeros, dense, bias, weight_scales, misread())

        return linear

    def _dense_weight(
        self, packed: torch.Tensor, scales: torch.Tensor, group_size: int
    ) -> torch.Tensor:
        key = (packed.data_ptr(), scales.data_ptr(), tuple(packed.shape), group_size)
        if key not in self._dense:
            self._dense[key] = dense_weight(packed, scales, group_size)
        return self._dense[key]


def as_read(stored: torch.Tensor, groups: int, channels: int) -> torch.Tensor:
    """Scales or sums of groups, of any shape, as a phone's kernel reads them [groups, channels]."""
    return stored.as_strided((groups, channels), (stepped_over(channels), 1))


def misread_sums(sums: torch.Tensor, packed: torch.Tensor, group_size: int) -> torch.Tensor | None:
    """What the kernel reads as the sum of each group less what it is, float32 [groups, N]; None if
    that is nothing."""
    right = torch.from_numpy(group_sums(packed.numpy(), group_size)[:, : len(packed)])
    misread = as_read(sums, *right.shape) - right
    return misread.float() if misread.any() else None
