"""Checks how constants of int4 linears are stored against what the kernels read.

Scales and sums of groups are read one group after the other, `stepped_over` the output channels,
scales and biases in the type of the result. Sources: `linear_fp_weight_scales_load.glslh`,
`linear_int_weight_sums_load.glslh` and `q4gsw_linear_gemm__w_4x8.glsl` of ExecuTorch.
"""

import math
from collections.abc import Iterator

import numpy as np

from quatrain.errors import InputError
from quatrain.int4 import CHANNELS_TOGETHER, INPUTS_TOGETHER
from quatrain.multiples import up_to
from quatrain.program.inspect.linears import find_linears
from quatrain.program.vulkan.graph import Operator, Tensor, VulkanGraph
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS, WEIGHT_ONLY_LINEAR
from quatrain.program.vulkan.packed_weights import stepped_over


def most_rows(graph: VulkanGraph, linear: Operator) -> int:
    """The most rows that `linear` may see: one of an output layer that takes the last token."""
    out = graph.values[linear.out]
    return math.prod(out.shape[:-1]) if isinstance(out, Tensor) else 1


def packed_columns(graph: VulkanGraph, operator: Operator) -> np.ndarray:
    """The packed weights, uint8 [N, K/2], of an int4 linear of K inputs, without the columns that
    fill them up."""
    names = operator.named_args
    return graph.constant(names["weights"])[:, : graph.tensor(names["x"]).shape[-1] // 2]


def are_apart(graph: VulkanGraph, operator: Operator, name: str) -> bool:
    """Whether all groups of an int4 linear but the first get others' scales or sums: `name`, in
    rows further from each other, or nearer, than the kernel steps."""
    shape = graph.tensor(operator.named_args[name]).shape
    step = stepped_over(graph.tensor(operator.out).shape[-1])
    return len(shape) == 2 and shape[0] > 1 and shape[1] != step


def rows_overlap(graph: VulkanGraph, operator: Operator) -> bool:
    """Whether an int4 linear has several rows in a buffer that 8da4w's kernel, which fills them up
    to a multiple of 4 output channels, writes over one another."""
    out = graph.tensor(operator.out)
    uneven = out.shape[-1] % CHANNELS_TOGETHER != 0
    return uneven and out.storage == "buffer" and most_rows(graph, operator) > 1


def misread_types(graph: VulkanGraph, operator: Operator) -> Iterator[str]:
    """Scales and biases of an int4 linear in another type than its result, in which they are
    read, and sums that are not int32; a weight-only linear's float32 scales are converted when
    it loads."""
    names, made = operator.named_args, graph.tensor(operator.out).dtype
    for name, read in (("weight_scales", made), ("bias", made), ("weight_sums", "int32")):
        stored = graph.values[names[name]] if name in names else None
        converted = operator.kind == WEIGHT_ONLY_LINEAR and name == "weight_scales"
        taken = (read, "float32") if converted else (read,)
        if isinstance(stored, Tensor) and stored.dtype not in taken:
            yield f"{name} of {stored.dtype}, read as {read}"


def check_int4_constants(graph: VulkanGraph, what: str) -> None:
    """Refuse, with an `InputError` that names `what` and the linear, int4 linears whose constants
    do not fit together, or past whose end, or in another type than which, their kernel reads."""
    for index, operator in enumerate(graph.operators):
        if operator.kind in INT4_LINEARS:
            for problem in _problems(graph, operator):
                names = {linear.operator: linear.name for linear in find_linears(graph)}
                raise InputError(f"{what}: {names[index]}: {problem}")


def _problems(graph: VulkanGraph, operator: Operator) -> Iterator[str]:
    names = operator.named_args
    x, packed, scales = (graph.tensor(names[name]) for name in ("x", "weights", "weight_scales"))
    group, columns = graph.integer(names["group_size"]), x.shape[-1]
    fits = (
        packed.dtype == "uint8"
        and packed.shape[1] == up_to(columns, INPUTS_TOGETHER) // 2
        and group > 0
        and columns % group == 0
        and len(scales.shape) == 2
        and scales.shape[0] * group >= columns  # as many sums of activations have room
    )
    if not fits:
        yield (
            f"{columns} inputs in groups of {group} do not fit packed weights of {packed.dtype}"
            f"{list(packed.shape)} with scales {list(scales.shape)}"
        )
        return
    channels, groups = packed.shape[0], columns // group
    read = (groups - 1) * stepped_over(channels) + channels
    for name, count in (("weight_scales", read), ("weight_sums", read), ("bias", channels)):
        stored = graph.values[names[name]] if name in names else None
        unread = name == "weight_sums" and math.prod(x.shape[:-1]) == 1
        if isinstance(stored, Tensor) and math.prod(stored.shape) < count and not unread:
            yield (
                f"{name} {list(stored.shape)} of {groups} groups and {channels} output channels: "
                f"the kernel reads {count} and past their end, so that a phone computes undefined "
                "values; quatrain retarget MODEL.PTE --repair -o FIXED.PTE repairs sums, another "
                "export the rest"
            )
    yield from (f"{types}: export the model again" for types in misread_types(graph, operator))
