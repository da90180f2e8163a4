"""Repairs scales and group sums that are stored with another row length than the kernels of int4
linears read."""

from dataclasses import replace

import numpy as np

from quatrain.errors import InputError
from quatrain.program.container import Program
from quatrain.program.edit.compact import compact
from quatrain.program.int4_constants import are_apart, packed_columns
from quatrain.program.vulkan.graph import Operator, VulkanGraph
from quatrain.program.vulkan.linear_kernels import INT4_LINEARS
from quatrain.program.vulkan.packed_weights import group_sums, stepped_over


def repair_group_strides(program: Program, graph: VulkanGraph) -> int:
    """Store scales and sums of groups with the stride that the kernel uses, in place; returns the
    number of changed linears of `graph`.

    Sums are computed from the weights, whatever is stored. Raises `InputError` if scales are stored
    for fewer channels than there are.
    """
    found = 0
    for index, operator in enumerate(graph.operators):
        if operator.kind in INT4_LINEARS:
            names, joined = operator.named_args, {}
            for name, add in (("weight_scales", _add_scales), ("weight_sums", add_sums)):
                if name in names and are_apart(graph, operator, name):
                    joined[names[name]] = add(program, graph, operator)
            args = tuple(joined.get(value, value) for value in operator.args)
            graph.operators[index] = replace(operator, args=args)
            found += bool(joined)
    if found:
        compact(graph)
    return found


def _add_scales(program: Program, graph: VulkanGraph, operator: Operator) -> int:
    """The value of the scales of an int4 linear, added to the program's constants as read."""
    stored = graph.constant(operator.named_args["weight_scales"])
    channels = graph.tensor(operator.out).shape[-1]
    if stored.shape[1] < channels:
        raise InputError(
            f"{program.path}: an int4 linear of {channels} output channels has scales "
            f"{list(stored.shape)}, none for its last ones; export the model again"
        )
    scales = np.pad(stored[:, :channels], ((0, 0), (0, stepped_over(channels) - channels)))
    return graph.add_constant(program.add_data(scales.tobytes()), scales.dtype.name, scales.shape)


def add_sums(program: Program, graph: VulkanGraph, operator: Operator) -> int:
    """The value of the sums of groups of an int4 linear's weights, added to the program's constants
    as the 8da4w kernel reads them."""
    group_size = graph.integer(operator.named_args["group_size"])
    sums = group_sums(packed_columns(graph, operator), group_size)
    program.release_memory()
    return graph.add_constant(program.add_data(sums.tobytes()), "int32", sums.shape)
