"""Exports a program for a phone's GPU and runtime."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from quatrain.backbone.tensor_shapes import linear_shapes
from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.open import open_checkpoint
from quatrain.export.exporter import context_length, export_checkpoint
from quatrain.export.report import ExportReport
from quatrain.export.request import ExportRequest
from quatrain.export.vulkan.call_length import longest_call
from quatrain.stages import Stages
from quatrain.targets import PlannedProgram, TargetChoice, choose_for_target


def export_for_target(
    checkpoint: Path | str,
    output: Path | str,
    request: ExportRequest,
    params: Path | str | None = None,
    stages: Stages | None = None,
    explain: Callable[[str], None] | None = None,
    tokenizer: Path | str | None = None,
) -> ExportReport:
    """Write the program of an int4 checkpoint with what its target wants, where one is named.

    Args:
        checkpoint: As `open_checkpoint` takes it.
        output: The .pte file to write; `<stem>.tokenizer.json` appears beside it.
        request: The request; what it leaves open is chosen for its target.
        params: The params.json of a checkpoint that is a file, if it is not beside it.
        stages: Receives the progress of each stage.
        explain: Called before the first stage with each reason for the choices, a sentence.
        tokenizer: As in `export_checkpoint`.

    Raises:
        InputError: As `export_checkpoint` does.
    """
    opened = open_checkpoint(checkpoint, params) if request.target is not None else None
    choice = None if opened is None else choose_for(opened, request)
    options = request.options(choice)
    if choice and explain:
        for reason in choice.reasons:
            explain(reason)
    return export_checkpoint(checkpoint, output, options, params, stages, tokenizer)


def choose_for(opened: Checkpoint, request: ExportRequest) -> TargetChoice | None:
    """What is chosen for the target of `request`, if it names one. Raises `InputError` as
    `choose_for_target`, and for too long a context."""
    if request.target is None:
        return None
    planned = replace(
        planned_program(opened, request.max_seq_len, request.prefill_chunk_size),
        scheme=request.asked_scheme,
        activation_dtype=request.activation_dtype,
    )
    return choose_for_target(request.target, request.runtime, planned)


def plan_program(
    checkpoint: Path | str,
    params: Path | str | None = None,
    max_seq_len: int | None = None,
    prefill_chunk_size: int | None = None,
) -> PlannedProgram:
    """What decides on defects of the program of `checkpoint`, known without reading its tensors."""
    return planned_program(open_checkpoint(checkpoint, params), max_seq_len, prefill_chunk_size)


def planned_program(
    opened: Checkpoint, max_seq_len: int | None, prefill_chunk_size: int | None
) -> PlannedProgram:
    """The same, of a checkpoint that is opened. Raises `InputError` for too long a context."""
    context = context_length(opened, max_seq_len)
    config = replace(opened.config, max_seq_len=context, prefill_chunk_size=prefill_chunk_size)
    return PlannedProgram(
        rows=longest_call(config),
        channels=min(shape[-1] for shape in linear_shapes(config).values()),
        group_size=opened.group_size,
    )
