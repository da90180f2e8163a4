"""Writes a program with linears of both schemes: first in 8da4w, then some are made weight-only."""

from dataclasses import replace
from pathlib import Path

from torch import nn

from quatrain.export.kernels.assignment import LinearRow
from quatrain.export.kernels.check import located_linears
from quatrain.export.options import ExportOptions
from quatrain.int4 import Scheme
from quatrain.program import open_program, write_program
from quatrain.program.edit.compact import compact
from quatrain.program.edit.convertible import require_whole_channels
from quatrain.program.edit.retarget import to_weight_only
from quatrain.program.vulkan.linear_kernels import DYNAMIC_LINEAR, INT4_LINEARS, WEIGHT_ONLY_LINEAR

_KERNEL_OF = {Scheme.DYNAMIC_INT8: DYNAMIC_LINEAR, Scheme.WEIGHT_ONLY: WEIGHT_ONLY_LINEAR}


def planned_rows(rows: list[LinearRow], options: ExportOptions) -> list[LinearRow]:
    """`rows` with the kernels of the options' scheme plan, if there is one.

    Raises `InputError` if the plan does not fit them.
    """
    if options.scheme_plan is None:
        return rows
    int4 = [row.name for row in rows if row.kernel in INT4_LINEARS]
    schemes = options.scheme_plan.schemes(int4)
    return [
        replace(row, kernel=_KERNEL_OF[schemes[row.name]]) if row.name in schemes else row
        for row in rows
    ]


def make_weight_only(
    path: Path, rows: list[LinearRow], planned: list[LinearRow], backbone: nn.Module
) -> None:
    """Make weight-only, in the program at `path`, the linears of `rows` that are so in `planned`.

    Raises `InputError` if one's output channels are not multiples of 4.
    """
    program = open_program(path)
    located = located_linears(program, rows, backbone)
    changing = [
        located[row.name]
        for row, wanted in zip(rows, planned, strict=True)
        if row.kernel != wanted.kernel
    ]
    require_whole_channels(program, program.vulkan, changing)
    to_weight_only(program.vulkan, changing)
    compact(program.vulkan)
    write_program(program, path)
