"""`quatrain convert`: any model or checkpoint to the pre-quantized safetensors layout."""

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.commands._common import (
    Debug,
    Json,
    check_no_word,
    human_bytes,
    one_of,
    print_json,
    shown_stages,
)
from quatrain.errors import Interrupted
from quatrain.int4 import GROUP_SIZES

if TYPE_CHECKING:
    from quatrain.quantize import ConvertReport


class Table(StrEnum):
    keep = "keep"
    int8 = "int8"
    int4 = "int4"
    fp = "fp"


class OutputTable(StrEnum):
    keep = "keep"
    int8 = "int8"
    int4 = "int4"


def convert(
    source: Annotated[
        str,
        typer.Argument(
            metavar="IN",
            help="A checkpoint of torchao, GPTQ, AWQ, compressed-tensors or Meta, a model in "
            "floating point, a GGUF file, or hf://owner/name.",
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to write.")],
    params: Annotated[
        Path | None, typer.Option(metavar="FILE", help="params.json, if not beside the file.")
    ] = None,
    group_size: Annotated[
        int | None,
        typer.Option(
            help="For a floating-point source: 32 (the default), 64, 128 or 256.",
            autocompletion=one_of(*GROUP_SIZES),
        ),
    ] = None,
    embedding: Annotated[
        Table,
        typer.Option(
            help="keep: as the source has it; int8 for a floating-point source (int4 where a GGUF "
            "file has it as Q4_0)."
        ),
    ] = Table.keep,
    output_layer: Annotated[
        OutputTable,
        typer.Option(help="keep: as the source has it; int4 for a floating-point source."),
    ] = OutputTable.keep,
    requantize_asymmetric: Annotated[
        bool,
        typer.Option(
            "--requantize-asymmetric",
            help="Round asymmetric and act-order linears anew, and say what that costs.",
        ),
    ] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write any model or checkpoint in the pre-quantized layout, without loss where it is int4
    already. Interrupted, it goes on where it was.

    Example: `quatrain convert hf://owner/llama-gptq llama-int4 --output-layer int4`
    """
    from quatrain.quantize import ConvertOptions, convert_model
    from quatrain.quantize.resumable import working_folder

    check_no_word(source, "convert")
    options = ConvertOptions(
        group_size=group_size,
        embedding=embedding.value,
        output_layer=output_layer.value,
        requantize_asymmetric=requantize_asymmetric,
    )
    try:
        report = convert_model(source, output, options, params, shown_stages())
    except KeyboardInterrupt:
        kept = working_folder(output)
        if not kept.exists():
            raise
        raise Interrupted(
            f"interrupted; the same command goes on where it was, with what is kept in {kept}"
        ) from None
    if json:
        print_json(dataclasses.asdict(report))
    else:
        _print_report(report)


def _print_report(report: "ConvertReport") -> None:
    print(f"{report.output}: {report.tensors} tensors, group size {report.group_size}")
    print(f"  size      {human_bytes(report.bytes_in)} -> {human_bytes(report.bytes_out)}")
    if report.resumed_at:
        print(f"  resumed   {report.resumed_at} tensors were there already")
    if report.rounded:
        print(
            f"  rounded   {report.rounded} matrices, {report.relative_rms_error:.2%} relative RMS "
            "error; the others are the source's own"
        )
    else:
        print("  rounded   none: integers and scales are the source's own")
    if not report.tokenizer:
        print("  tokenizer none: the source came without a tokenizer.json")
    seconds = sum(report.seconds.values())
    print(f"  {seconds:.1f} s, peak memory {human_bytes(report.peak_rss_bytes)}")
