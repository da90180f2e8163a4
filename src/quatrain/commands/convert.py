"""`quatrain convert`: any model or checkpoint to the pre-quantized safetensors layout."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.commands._before_torch import import_torch, refuse_smollm2
from quatrain.commands.options.shared import Debug, Json, TokenizerFile, one_of
from quatrain.commands.printing.checkpoint import planned, print_checkpoint, print_programs_and_next
from quatrain.commands.printing.progress import shown_stages
from quatrain.commands.printing.results import hint_at_resuming, print_json
from quatrain.commands.quantize import Base
from quatrain.int4 import GROUP_SIZES
from quatrain.quantize.tensor_formats import EmbeddingFormat, ForBackend, OutputFormat
from quatrain.short_lists import and_more

if TYPE_CHECKING:
    from quatrain.quantize.report import QuantizeReport

_SHOWN = 4  # names of linears in a line

_JSON_KEYS = (
    "source", "output", "group_size", "tensors", "resumed_at", "bytes_in", "bytes_out", "rounded",
    "relative_rms_error", "rounded_linears", "tokenizer_files", "notes", "seconds",
    "peak_rss_bytes", "programs",
)  # fmt: skip


Source = Annotated[
    str,
    typer.Argument(
        metavar="IN",
        help="A checkpoint of torchao, GPTQ, AWQ, compressed-tensors or Meta, a floating-point "
        "model, a GGUF file, or hf://owner/name.",
    ),
]
Output = Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")]
Params = Annotated[
    Path | None, typer.Option(metavar="FILE", help="params.json, if not beside the checkpoint.")
]
GroupSize = Annotated[
    int | None,
    typer.Option(
        help="For a floating-point source: 32 (the default), 64, 128 or 256, or for --backend "
        "vulkan 16.",
        autocompletion=one_of(*GROUP_SIZES),
    ),
]
Embedding = Annotated[
    EmbeddingFormat,
    typer.Option(
        help="keep: as in the source; for a floating-point source int8, or int4 if a GGUF file "
        "stores it as Q4_0."
    ),
]
OutputLayer = Annotated[
    OutputFormat,
    typer.Option(help="keep: as in the source; for a floating-point source int4."),
]
RequantizeAsymmetric = Annotated[
    bool,
    typer.Option(
        "--requantize-asymmetric",
        help="Quantize asymmetric and act-order linears again, and report the error.",
    ),
]
Backend = Annotated[
    ForBackend,
    typer.Option(
        help="The backends that will run the checkpoint. vulkan keeps int4 groups of 16, which "
        "are rounded again for XNNPACK; for a floating-point source as in `quantize`."
    ),
]


def convert(
    source: Source,
    output: Output,
    params: Params = None,
    group_size: GroupSize = None,
    embedding: Embedding = "keep",
    output_layer: OutputLayer = "keep",
    requantize_asymmetric: RequantizeAsymmetric = False,
    backend: Backend = "any",
    tokenizer: TokenizerFile = None,
    base: Base = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Convert any model or checkpoint to the pre-quantized layout, without loss if it is int4
    already. An interrupted run is resumed.

    Example: `quatrain convert hf://owner/llama-gptq llama-int4 --output-layer int4`
    """
    from quatrain.quantize.arguments import check_arguments

    refuse_smollm2(source, "convert")
    check_arguments(source, output, group_size, params, backend, tokenizer)

    import_torch()
    from quatrain.quantize.convert_options import ConvertOptions
    from quatrain.quantize.output.resumable import working_folder
    from quatrain.quantize.pipeline import convert_model

    options = ConvertOptions(group_size, embedding, output_layer, requantize_asymmetric, backend)
    with hint_at_resuming(working_folder(output)):
        report = convert_model(source, output, options, params, shown_stages(), tokenizer, base)
    programs = planned(output, backend)
    if json:
        said = asdict(report) | {"programs": [program.as_dict() for program in programs]}
        print_json({key: said[key] for key in _JSON_KEYS})
    else:
        print_checkpoint(report, _details(report), "source")
        print_programs_and_next(output, programs)


def _details(report: "QuantizeReport") -> list[str]:
    lines = []
    if report.resumed_at:
        lines.append(f"  resumed   {report.resumed_at} tensors were there already")
    if report.rounded:
        lines.append(
            f"  rounded   {report.rounded} matrices, {report.relative_rms_error:.2%} relative RMS "
            "error; the others are the source's own"
        )
        lines += _rounded_lines(report)
    else:
        lines.append("  rounded   none: integers and scales are the source's own")
    return lines


def _rounded_lines(report: "QuantizeReport") -> list[str]:
    """The linears that were rounded, by what they were in the source."""
    by_kind: dict[str, list[str]] = {}
    for linear in report.rounded_linears:
        said = f"{linear.name} ({linear.relative_rms_error:.2%})"
        by_kind.setdefault(linear.was, []).append(said)
    lines = []
    for was, linears in by_kind.items():
        all_of_them = " (--json)" if len(linears) > _SHOWN else ""
        lines.append(f"            {was}: {and_more(linears, _SHOWN)}{all_of_them}")
    return lines
