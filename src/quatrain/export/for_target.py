"""Exports as a phone's GPU and its runtime want it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from quatrain.backbone.model import Backbone
from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.open import open_checkpoint
from quatrain.export.exporter import context_length, export_checkpoint
from quatrain.export.report import ExportReport
from quatrain.export.request import ExportRequest
from quatrain.stages import Stages
from quatrain.targets import PlannedProgram, TargetChoice, choose_for_target


def export_for_target(
    checkpoint: Path | str,
    output: Path | str,
    request: ExportRequest,
    params: Path | str | None = None,
    stages: Stages | None = None,
    explain: Callable[[str], None] | None = None,
    tokenizer: Path | None = None,
) -> ExportReport:
    """Write the program of an int4 checkpoint with what its target wants, where one is named.

    Args:
        checkpoint: As `open_checkpoint` takes it.
        output: The .pte file to write; `<stem>.tokenizer.json` appears beside it.
        request: What is asked for; what it leaves open is chosen for its target.
        params: The params.json of a checkpoint that is a file, where it is not beside it.
        stages: Hears of each stage.
        explain: Hears, before the first stage, each reason for what was chosen, a sentence.
        tokenizer: As in `export_checkpoint`.

    Raises:
        InputError: As `export_checkpoint` does.
    """
    choice = _choose(checkpoint, request, params)
    options = request.options(choice)
    if choice and explain:
        for reason in choice.reasons:
            explain(reason)
    return export_checkpoint(checkpoint, output, options, params, stages, tokenizer)


def _choose(
    checkpoint: Path | str, request: ExportRequest, params: Path | str | None
) -> TargetChoice | None:
    if request.target is None:
        return None
    planned = replace(
        plan_program(checkpoint, params, request.max_seq_len),
        scheme=request.asked_scheme,
        activation_dtype=request.activation_dtype,
    )
    return choose_for_target(request.target, request.runtime, planned)


def plan_program(
    checkpoint: Path | str, params: Path | str | None = None, max_seq_len: int | None = None
) -> PlannedProgram:
    """What decides on defects of the program of `checkpoint`, known without reading its tensors."""
    return planned_program(open_checkpoint(checkpoint, params), max_seq_len)


def planned_program(opened: Checkpoint, max_seq_len: int | None) -> PlannedProgram:
    """The same, of a checkpoint that is opened. Raises `InputError` for too long a context."""
    rows = context_length(opened, max_seq_len)
    with torch.device("meta"):
        backbone = Backbone(replace(opened.config, max_seq_len=rows))
    linears = [part for part in backbone.modules() if isinstance(part, nn.Linear)]
    channels = min(linear.in_features for linear in linears)
    return PlannedProgram(rows=rows, channels=channels, group_size=opened.group_size)
