"""Predicts the programs that `export` would write: bytes, memory, and refusals."""

from dataclasses import asdict, dataclass
from typing import Any

from quatrain.backbone.model import Backbone
from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.errors import InputError
from quatrain.export.exporter import backbone_of_operators, context_length
from quatrain.export.kernels.assignment import assign_kernels, dequantize_fallbacks
from quatrain.export.metadata import metadata_methods
from quatrain.export.options import ExportOptions
from quatrain.export.plan.memory import memory_of
from quatrain.export.plan.older_overhead import older_constants, older_overhead
from quatrain.export.plan.sizes import constants_of
from quatrain.export.plan.vulkan_overhead import vulkan_bytes
from quatrain.export.plan.xnnpack_overhead import xnnpack_bytes
from quatrain.export.vulkan.limits import check_8da4w, check_limits
from quatrain.export.vulkan.mixed_schemes import planned_rows
from quatrain.linear.int4 import Int4Linear, without_activation_rounding


@dataclass(frozen=True)
class PlannedBytes:
    """Of one program.

    Attributes:
        file: Of the .pte file; its tokenizer comes beside it.
        constants: Of the weights and tables in it.
        memory: What running it holds at most, for the longest call (see `memory_of`).
        caches: Of that, the keys and values of the whole context.
    """

    file: int
    constants: int
    memory: int
    caches: int


@dataclass(frozen=True)
class ProgramPlan:
    """A program that `export` would write, or refuse.

    Attributes:
        backend: "vulkan" or "xnnpack".
        scheme: "8da4w" or "weight-only", or "mixed" with a scheme plan that has both.
        activation_dtype: "fp32" or "fp16".
        max_seq_len: The context, in tokens.
        predicted_bytes: None if it is refused.
        refused: Why, and what to do.
    """

    backend: str
    scheme: str
    activation_dtype: str
    max_seq_len: int
    predicted_bytes: PlannedBytes | None = None
    refused: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data, ready for JSON."""
        return asdict(self)


def programs_of(weightless: Checkpoint, options: list[ExportOptions]) -> list[ProgramPlan]:
    """What an export of the checkpoint `weightless` would do with each of `options`.

    Raises `InputError` if the context that is asked for is longer than the model's.
    """
    return [_program(weightless, each) for each in options]


def _program(weightless: Checkpoint, options: ExportOptions) -> ProgramPlan:
    context = context_length(weightless, options.max_seq_len)
    mixed = options.scheme_plan is not None and options.scheme_plan.only_scheme is None
    scheme = "mixed" if mixed else str(options.scheme)
    kind = options.backend, scheme, options.activation_dtype, context
    try:
        if options.backend == "vulkan":
            check_limits(weightless, options, context)
        backbone = _backbone(weightless, options)
    except InputError as error:
        return ProgramPlan(*kind, refused=str(error))
    constants = constants_of(backbone, options)
    metadata = metadata_methods(backbone, weightless.params, options.backend)
    around = vulkan_bytes if options.backend == "vulkan" else xnnpack_bytes
    file, stored = around(backbone, constants, metadata), sum(constants.values())
    if options.older_forms:
        tables = older_constants(backbone, options.itemsize)
        file, stored = file + tables + older_overhead(backbone), stored + tables
    memory, caches = memory_of(backbone, options, stored)
    return ProgramPlan(*kind, PlannedBytes(file, stored, memory, caches))


def _backbone(weightless: Checkpoint, options: ExportOptions) -> Backbone:
    """As the exporter writes it. Raises `InputError` if a linear has no kernel or would fail on the
    target, or the scheme plan does not fit."""
    backbone = backbone_of_operators(weightless, options, weightless.table_kinds)
    rows = assign_kernels(backbone, options)
    every = planned_rows(rows, options)
    check_8da4w(every, backbone.config, options)
    for row, planned in zip(rows, every, strict=True):
        linear = backbone.get_submodule(row.name)
        if planned != row and isinstance(linear, Int4Linear):
            backbone.set_submodule(row.name, without_activation_rounding(linear))
    dequantize_fallbacks(backbone, rows)
    return backbone
