"""Exports a checkpoint on disk to a program on disk."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from quatrain.atomic_files import whole_file
from quatrain.backbone.build import build_backbone
from quatrain.backbone.layers.kv_cache import quantize_kv_cache
from quatrain.backbone.model import Backbone
from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.files.memory_map import only_read, release_mapped
from quatrain.checkpoint.float_model import FloatModel
from quatrain.checkpoint.open import open_checkpoint
from quatrain.checkpoint.written_tokenizer import write_tokenizer_of
from quatrain.errors import InputError
from quatrain.export.attention_sink import with_attention_sink
from quatrain.export.kernels.assignment import LinearRow, assign_kernels, dequantize_fallbacks
from quatrain.export.kernels.check import check_program
from quatrain.export.metadata import longest_call, metadata_methods
from quatrain.export.notes import notes_on, notes_on_tokenizer
from quatrain.export.options import DEFAULT_MAX_SEQ_LEN, LEAST_CONTEXT, ExportOptions
from quatrain.export.report import ExportReport
from quatrain.export.vulkan.call_length import check_call_length
from quatrain.export.vulkan.limits import check_8da4w, check_limits
from quatrain.export.vulkan.mixed_schemes import make_weight_only, planned_rows
from quatrain.export.vulkan.operator_modules import to_vulkan_operators
from quatrain.export.vulkan.program_from_template import write_vulkan_program_from_template
from quatrain.export.xnnpack.operator_modules import to_cpu_operators
from quatrain.export.xnnpack.positive_scales import RoundedAgain, make_scales_positive
from quatrain.export.xnnpack.program_from_template import write_xnnpack_program_from_template
from quatrain.program import open_program, write_program
from quatrain.program.edit.older_operators import write_older_operators
from quatrain.program.edit.replicated_layers import IrregularGraph
from quatrain.quiet import quiet
from quatrain.stages import Stages, peak_rss_bytes
from quatrain.targets import require_target
from quatrain.tokenizer.copies import with_end_ids
from quatrain.tokenizer.files import written_beside


def export_checkpoint(
    checkpoint: Path | str,
    output: Path | str,
    options: ExportOptions | None = None,
    params: Path | str | None = None,
    stages: Stages | None = None,
    tokenizer: Path | str | None = None,
) -> ExportReport:
    """Export an int4 checkpoint as a program, with its tokenizer beside it.

    Each linear becomes exactly one kernel of the chosen scheme. No half-written file remains.

    Args:
        checkpoint: As for `open_checkpoint`.
        output: The .pte file to write; `<stem>.tokenizer.json` is written beside it.
        options: None means the defaults: 8da4w, Vulkan, fp32.
        params: The params.json of a checkpoint that is a file, if it is not beside it.
        stages: Receives the progress of each stage.
        tokenizer: A tokenizer.json to use instead of the checkpoint's own.

    Raises:
        InputError: The checkpoint or an option is wrong, a linear has no kernel (unless
            `options.allow_fallback`), or the output cannot be written.
    """
    output, options, stages = Path(output), options or ExportOptions(), stages or Stages()
    opened = _open(checkpoint, params, options, stages)
    with stages("build the backbone"):
        backbone, rows, rounded = _prepare(opened, options)
        planned = planned_rows(rows, options)
        if options.examine:
            check_8da4w(planned, backbone.config, options)
        notes = [*opened.notes, *notes_on(backbone, options, rounded)]
        release_mapped()

    def write_tokenizer(folder: Path) -> list[Path]:
        written = write_tokenizer_of(opened, folder, Path(tokenizer) if tokenizer else None)
        notes.extend(written.notes)
        return written.files

    with written_beside(output, write_tokenizer) as brought, whole_file(output) as temporary:
        described = with_end_ids(opened.params, brought.values())
        metadata = metadata_methods(backbone, described, options.backend)
        notes += _write_program(backbone, metadata, options, temporary, stages)
        with stages("account for every linear"):
            _check_linears(temporary, rows, planned, options, backbone)
        _fit_to_target(temporary, options, output)
    notes += notes_on_tokenizer(output, list(brought))
    return ExportReport(
        output=output,
        options=options,
        max_seq_len=backbone.config.max_seq_len,
        prefill_chunk_size=longest_call(backbone, options.backend),
        bytes=output.stat().st_size,
        linears=planned,
        seconds=stages.seconds,
        peak_rss_bytes=peak_rss_bytes(),
        tokenizer_files=list(brought),
        notes=notes,
    )


def _open(
    checkpoint: Path | str, params: Path | str | None, options: ExportOptions, stages: Stages
) -> Checkpoint:
    """The checkpoint, within the backend's limits, its values as the kernels take them."""
    with stages("open the checkpoint"), only_read():
        opened = open_checkpoint(checkpoint, params)
    if options.backend == "vulkan":
        check_limits(opened, options, context_length(opened, options.max_seq_len))
    opened.check_values(stages)
    return opened


def _check_linears(
    path: Path,
    rows: list[LinearRow],
    planned: list[LinearRow],
    options: ExportOptions,
    backbone: Backbone,
) -> None:
    """Change the linears of the program at `path`, lowered as `rows`, to the `planned` ones, and
    check the program."""
    if planned != rows:
        make_weight_only(path, rows, planned, backbone)
    check_program(path, planned, options, backbone)
    if options.backend == "vulkan":
        check_call_length(open_program(path), backbone)


def _fit_to_target(path: Path, options: ExportOptions, output: Path) -> None:
    """Write the program at `path` in what the target's release registers; refuse one, to be called
    `output`, that fails there."""
    if options.older_forms:
        program = open_program(path)
        write_older_operators(program)
        write_program(program, path)
    if options.target is not None and options.examine:
        require_target(open_program(path), options.target, output)


def context_length(opened: Checkpoint | FloatModel, asked: int | None) -> int:
    """The context to export, in tokens: `max_seq_len` of params.json unless another is asked for,
    up to `max_context_len`, what the model was trained for."""
    usual = opened.config.max_seq_len
    longest = max(usual, opened.params.get("max_context_len") or 0)
    if asked is not None and asked > longest:
        raise InputError(
            f"--max-seq-len is {asked}, but params.json says the model was trained for a context "
            f"of {longest}; ask for at most {longest}"
        )
    return asked or min(usual, DEFAULT_MAX_SEQ_LEN)


def backbone_of_operators(
    opened: Checkpoint, options: ExportOptions, table_kinds: Mapping[str, str] | None = None
) -> Backbone:
    """The backbone of `opened` as a program computes it: of the operators of the options' backend,
    its quantized linears aside. `table_kinds`: as of `build_backbone`.

    Raises `InputError` if the checkpoint cannot be what the options ask for.
    """
    context = context_length(opened, options.max_seq_len)
    if context < LEAST_CONTEXT:
        raise InputError(
            f"the model's context is {context} tokens, expected {LEAST_CONTEXT} or more; correct "
            "max_seq_len in params.json, which quantize takes from max_position_embeddings, to the "
            "context that the model was trained for"
        )
    config = replace(opened.config, prefill_chunk_size=options.prefill_chunk_size)
    backbone = build_backbone(
        with_attention_sink(config, options.attention_sink, context),
        opened.tensors,
        options.scheme,
        group_size=opened.group_size,
        max_seq_len=context,
        embedding_input=options.embedding_input,
        hidden_output=options.hidden_output,
        table_kinds=table_kinds,
    )
    if options.kv_cache is not None:
        quantize_kv_cache(backbone)
    (to_vulkan_operators if options.backend == "vulkan" else to_cpu_operators)(backbone)
    _check_prefill_chunk(backbone, options)
    return backbone


def _check_prefill_chunk(backbone: Backbone, options: ExportOptions) -> None:
    """Raise `InputError` if a call is to take more tokens than it can."""
    asked, longest = options.prefill_chunk_size, longest_call(backbone, options.backend)
    if asked is not None and asked > longest:
        is_context = longest == backbone.config.max_seq_len
        why = "the length of the context" if is_context else "the limit of its layers"
        raise InputError(
            f"--prefill-chunk-size is {asked}, but a call takes at most {longest} tokens, {why}; "
            f"ask for at most {longest}, or leave it out"
        )


def _prepare(
    opened: Checkpoint, options: ExportOptions
) -> tuple[Backbone, list[LinearRow], RoundedAgain]:
    backbone = backbone_of_operators(opened, options)
    rows = assign_kernels(backbone, options)
    dequantize_fallbacks(backbone, rows)
    vulkan = options.backend == "vulkan"
    rounded = RoundedAgain() if vulkan else make_scales_positive(backbone)
    return backbone, rows, rounded


def _write_program(
    backbone: Backbone, metadata: dict[str, Any], options: ExportOptions, path: Path, stages: Stages
) -> list[str]:
    """Write the program; returns notes on how."""
    vulkan = options.backend == "vulkan"
    try:
        if vulkan:
            write_vulkan_program_from_template(
                backbone, options.scheme, options.compile_options, metadata, path, stages
            )
        else:
            write_xnnpack_program_from_template(backbone, metadata, path, stages)
        return []
    except IrregularGraph as error:
        reason = str(error)
    # The compiler takes seconds to import, so only the way that needs it imports it.
    if vulkan:
        with stages("import the compiler"), quiet():
            from quatrain.export.vulkan.lowering import write_vulkan_program
            from quatrain.export.vulkan.packed_layers import pack_layers
        pack_layers(backbone, options.compile_options)
        write_vulkan_program(backbone, options.compile_options, metadata, path, stages)
    else:
        with stages("import the compiler"), quiet():
            from quatrain.export.xnnpack.lowering import write_xnnpack_program
        write_xnnpack_program(backbone, metadata, path, stages)
    return [f"Every layer was lowered separately, which takes longer: {reason}."]
