"""Finds linears that cannot be converted from one activation scheme to the other."""

from collections.abc import Iterable

from quatrain.errors import InputError
from quatrain.int4 import CHANNELS_TOGETHER, INPUTS_TOGETHER
from quatrain.program.container import Program
from quatrain.program.inspect.linears import Linear
from quatrain.program.int4_constants import rows_overlap
from quatrain.program.vulkan.graph import VulkanGraph
from quatrain.program.vulkan.linear_kernels import WRONG_GROUP_SUMS, group_sums_are_right


def require_right_groups(program: Program, linears: Iterable[Linear]) -> None:
    """Refuse, with `InputError`, those whose groups 8da4w's kernel sums wrongly."""
    for linear in linears:
        if linear.group_size and not group_sums_are_right(linear.group_size):
            raise InputError(
                f"{program.path}: {linear.name} has groups of {linear.group_size}, and "
                f"{WRONG_GROUP_SUMS}. Leave it weight-only, or make the checkpoint again with "
                "quatrain quantize or convert --group-size 128."
            )


def require_packable_inputs(
    program: Program, graph: VulkanGraph, linears: Iterable[Linear]
) -> None:
    """Refuse, with `InputError`, those with weights that 8da4w is not loaded with."""
    for linear in linears:
        packed = graph.tensor(graph.operators[linear.operator].named_args["weights"])
        inputs = 2 * packed.shape[-1]
        if inputs % INPUTS_TOGETHER:
            raise InputError(
                f"{program.path}: {linear.name} has weights of {inputs} input channels, and "
                f"ExecuTorch loads those of 8da4w that are filled up to a multiple of "
                f"{INPUTS_TOGETHER} alone. Leave it weight-only."
            )


def require_separate_rows(program: Program, graph: VulkanGraph, linears: Iterable[Linear]) -> None:
    """Refuse, with `InputError`, those whose rows 8da4w's kernel writes over one another."""
    for linear in linears:
        operator = graph.operators[linear.operator]
        if rows_overlap(graph, operator):
            raise InputError(
                f"{program.path}: {linear.name} gives several rows of "
                f"{graph.tensor(operator.out).shape[-1]} output channels in a buffer, which "
                "ExecuTorch's 8da4w kernel writes as if they were filled up to a multiple of 4: "
                "all but the first would be wrong. Leave it weight-only: select the others with "
                "--linears or --layers."
            )


def require_types_as_read(program: Program, graph: VulkanGraph, linears: Iterable[Linear]) -> None:
    """Refuse, with `InputError`, those with scales in another type than 8da4w's kernel reads, which
    the weight-only kernel converts."""
    for linear in linears:
        operator = graph.operators[linear.operator]
        stored = graph.tensor(operator.named_args["weight_scales"]).dtype
        made = graph.tensor(operator.out).dtype
        if stored != made:
            raise InputError(
                f"{program.path}: {linear.name} has scales of {stored}, and 8da4w's kernel reads "
                f"them as {made}, the type of its result. Leave it weight-only, or export the "
                "checkpoint with --linear-scheme 8da4w."
            )


def require_zero_points_as_read(
    program: Program, graph: VulkanGraph, linears: Iterable[Linear], dtype: str
) -> None:
    """Refuse, with `InputError`, floating-point zero points in another type than activations."""
    for linear in linears:
        x = graph.tensor(graph.operators[linear.operator].named_args["x"])
        if dtype not in ("int8", x.dtype):
            raise InputError(
                f"--zero-point-dtype {dtype}: {linear.name} of {program.path} computes in "
                f"{x.dtype}, and ExecuTorch reads floating-point zero points in the activations' "
                f"type alone. Give int8 or {x.dtype}."
            )


def require_whole_channels(program: Program, graph: VulkanGraph, linears: Iterable[Linear]) -> None:
    """Refuse, with `InputError`, `linears` that cannot become weight-only."""
    for linear in linears:
        channels = graph.tensor(graph.operators[linear.operator].named_args["weights"]).shape[0]
        if channels % CHANNELS_TOGETHER:
            raise InputError(
                f"{program.path}: {linear.name} has {channels} output channels, and ExecuTorch 1.4 "
                "and later load weight-only linears with a multiple of 4 alone. Export the "
                "checkpoint with --weight-only-linear, which fills them up, or leave this linear "
                "out with --linears."
            )
