"""Triggers of defects of the linears' kernels."""

import math

import numpy as np

from quatrain.int4 import CHANNELS_TOGETHER
from quatrain.program import Operator, Program, VulkanGraph
from quatrain.program.inspect.linears import Linear, find_linears
from quatrain.program.inspect.sizes import is_held
from quatrain.program.int4_constants import are_apart, most_rows, packed_columns, rows_overlap
from quatrain.program.vulkan.half_buffers import in_half_buffer
from quatrain.program.vulkan.linear_kernels import (
    DYNAMIC_LINEAR,
    INT4_LINEARS,
    WEIGHT_ONLY_LINEAR,
    OtherScheme,
    group_sums_are_right,
)
from quatrain.program.vulkan.packed_weights import largest_one_sided_sum
from quatrain.targets.triggers.occurrence import (
    Occurrence,
    Occurrences,
    operators,
)

_FP16_MAX = 65504
_SMALL_SCALE = 2**-10  # times that of a row of range 1, 1/255: float16 then rounds by 1 % and more
_MANY_ROWS = 1024  # the fewest that an Adreno was seen to compute wrongly


def groups_summed_wrongly(graph: VulkanGraph) -> Occurrences:
    """Dynamic int4 linears of several rows with groups of 65 to 127, or above 128."""
    return [
        Occurrence(f"{linear.name}: groups of {linear.group_size}")
        for linear, _ in _of_several_rows(graph, DYNAMIC_LINEAR)
        if linear.group_size and not group_sums_are_right(linear.group_size)
    ]


def group_sums_apart(graph: VulkanGraph) -> Occurrences:
    """Dynamic int4 linears whose groups' sums are further apart than the channels read together."""
    return [
        Occurrence(f"{linear.name}: {graph.tensor(operator.out).shape[-1]} output channels")
        for linear, operator in _of_several_rows(graph, DYNAMIC_LINEAR)
        if are_apart(graph, operator, "weight_sums")
    ]


def scales_apart(graph: VulkanGraph) -> Occurrences:
    """Int4 linears whose groups' scales are further apart than the channels read together."""
    return [
        Occurrence(f"{linear.name}: {graph.tensor(operator.out).shape[-1]} output channels")
        for linear, operator in linears(graph, *INT4_LINEARS)
        if are_apart(graph, operator, "weight_scales")
    ]


def dynamic_linear_of_several_rows(graph: VulkanGraph) -> Occurrences:
    """Dynamic int4 linears that may quantize activations."""
    return [Occurrence(linear.name) for linear, _ in _of_several_rows(graph, DYNAMIC_LINEAR)]


def dynamic_linear(graph: VulkanGraph) -> Occurrences:
    """Every dynamic int4 linear."""
    return [Occurrence(linear.name) for linear, _ in linears(graph, DYNAMIC_LINEAR)]


def integer_sums_in_fp16(program: Program, graph: VulkanGraph) -> Occurrences:
    """Dynamic int4 linears in float16 buffers whose weights allow for sums beyond float16.

    Activations minus their zero point are 0 to 255 or -255 to 0 at the widest, so that a group's
    sum is at most 255 times the larger of its positive and its negative weights' sums.
    """
    for linear, operator in _of_several_rows(graph, DYNAMIC_LINEAR):
        out, weights = graph.tensor(operator.out), operator.named_args["weights"]
        if out.dtype != "float16" or out.storage != "buffer" or not linear.group_size:
            continue
        if linear.group_size * 255 * 8 > _FP16_MAX and is_held(program, graph, weights):
            packed = packed_columns(graph, operator)
            largest = 255 * largest_one_sided_sum(packed, linear.group_size)
            program.release_memory()
            if largest > _FP16_MAX:
                yield Occurrence(f"{linear.name}: sums of up to {largest}")


def small_scales_in_half_buffers(program: Program, graph: VulkanGraph) -> Occurrences:
    """8da4w linears in float16 buffers with half of the weights' scales so small that their product
    with an activation's scale loses most of float16's precision."""
    for linear, operator in _of_several_rows(graph, DYNAMIC_LINEAR):
        scales = operator.named_args["weight_scales"]
        if in_half_buffer(graph, operator) and is_held(program, graph, scales):
            middle = float(np.median(graph.constant(scales)))
            program.release_memory()
            if middle < _SMALL_SCALE:
                yield Occurrence(f"{linear.name}: scales around {middle:.1g}")


def weight_only_outputs_not_of_4(graph: VulkanGraph) -> Occurrences:
    """Weight-only int4 linears whose output channels, padding included, are not a multiple of 4."""
    channels = [
        (linear.name, graph.tensor(operator.named_args["weights"]).shape[0])
        for linear, operator in linears(graph, WEIGHT_ONLY_LINEAR)
    ]
    return [
        Occurrence(f"{name}: {count} output channels")
        for name, count in channels
        if count % CHANNELS_TOGETHER
    ]


def dynamic_outputs_not_of_4(graph: VulkanGraph) -> Occurrences:
    """Dynamic int4 linears of several rows into a buffer, whose output channels are not a multiple
    of 4."""
    return _of_overlapping_rows(graph, DYNAMIC_LINEAR)


def weight_only_outputs_not_of_4_in_buffers(graph: VulkanGraph) -> Occurrences:
    """Weight-only int4 linears of several rows into a buffer, whose output channels are not a
    multiple of 4."""
    return _of_overlapping_rows(graph, WEIGHT_ONLY_LINEAR)


def weight_only_of_several_rows(graph: VulkanGraph) -> Occurrences:
    """Weight-only int4 linears that see prompts."""
    return [Occurrence(linear.name) for linear, _ in _of_several_rows(graph, WEIGHT_ONLY_LINEAR)]


def int4_linear_of_batches(graph: VulkanGraph) -> Occurrences:
    """Int4 linears whose rows have more than one dimension."""
    shapes = [
        (linear.name, graph.tensor(operator.named_args["x"]).shape)
        for linear, operator in linears(graph, *INT4_LINEARS)
    ]
    return [
        Occurrence(f"{name}: {list(shape)}") for name, shape in shapes if math.prod(shape[:-2]) > 1
    ]


def int4_linear(graph: VulkanGraph) -> Occurrences:
    """Int4 linears of either scheme."""
    return [Occurrence(linear.name) for linear, _ in linears(graph, *INT4_LINEARS)]


def linear_of_several_rows(graph: VulkanGraph) -> Occurrences:
    """Linears that see prompts."""
    return [
        Occurrence(linear.name)
        for linear in find_linears(graph)
        if most_rows(graph, graph.operators[linear.operator]) > 1
    ]


def weight_only_int8_linear(graph: VulkanGraph) -> Occurrences:
    """Linears of int8 weights that lack their shader: certainly in float16, else where the scales
    do not fit a texture."""
    kinds = ("aten._weight_int8pack_mm", "et_vk.linear_qcs8w", "etvk.linear_qcs8w")
    return _without_shader(graph, *kinds)


def channel_wise_int4_linear(graph: VulkanGraph) -> Occurrences:
    """Linears of int4 weights with a scale per channel that lack their shader, as those of int8."""
    return _without_shader(graph, "et_vk.linear_qcs4w")


def _without_shader(graph: VulkanGraph, *kinds: str) -> Occurrences:
    return [
        Occurrence(place, None if graph.tensor(operator.out).dtype == "float16" else "possible")
        for place, operator in operators(graph, *kinds)
    ]


def weight_only_prefill_in_fp16(graph: VulkanGraph) -> Occurrences:
    """Weight-only int4 linears that see prompts in float16."""
    return [
        Occurrence(linear.name)
        for linear, operator in _of_several_rows(graph, WEIGHT_ONLY_LINEAR)
        if graph.tensor(operator.out).dtype == "float16"
    ]


def int4_linear_with_bias(graph: VulkanGraph) -> Occurrences:
    """Int4 linears that add a bias."""
    found = linears(graph, *INT4_LINEARS)
    return [Occurrence(linear.name) for linear, _ in found if linear.has_bias]


def many_rows_in_fp32(graph: VulkanGraph) -> Occurrences:
    """Floating-point linears in float32 that may see 1,024 rows or more."""
    return [
        Occurrence(f"{linear.name}: up to {rows} rows")
        for linear in find_linears(graph)
        if linear.scheme == OtherScheme.FLOAT
        and graph.tensor(graph.operators[linear.operator].out).dtype == "float32"
        and (rows := most_rows(graph, graph.operators[linear.operator])) >= _MANY_ROWS
    ]


def activation_scales(graph: VulkanGraph) -> Occurrences:
    """Where scales of activations are chosen for linears that read them."""
    read = [set(operator.args) for _, operator in _of_several_rows(graph, DYNAMIC_LINEAR)]
    return [
        Occurrence(f"{place}, read by {readers} linear{'s' * (readers > 1)}")
        for place, operator in operators(graph, "torchao.choose_qparams_affine")
        if (readers := sum(not args.isdisjoint(graph.outputs_of(operator)) for args in read))
    ]


def linears(graph: VulkanGraph, *kernels: str) -> list[tuple[Linear, Operator]]:
    """The linears that these kernels compute, each with its operator."""
    return [
        (linear, graph.operators[linear.operator])
        for linear in find_linears(graph)
        if linear.kernel in kernels
    ]


def _of_several_rows(graph: VulkanGraph, kernel: str) -> list[tuple[Linear, Operator]]:
    """Those that a call of several tokens gives several rows: not the output layer."""
    return [(one, op) for one, op in linears(graph, kernel) if most_rows(graph, op) > 1]


def _of_overlapping_rows(graph: VulkanGraph, kind: str) -> list[Occurrence]:
    return [
        Occurrence(f"{linear.name}: {graph.tensor(operator.out).shape[-1]} output channels")
        for linear, operator in linears(graph, kind)
        if rows_overlap(graph, operator)
    ]
