"""`quatrain quantize`: a floating-point model to an int4 checkpoint."""

import dataclasses
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.commands._common import Debug, Json, human_bytes, one_of, print_json, shown_stages
from quatrain.int4 import GROUP_SIZES

if TYPE_CHECKING:
    from quatrain.quantize import QuantizeReport


class Embedding(StrEnum):
    keep = "keep"
    int8 = "int8"
    int4 = "int4"
    fp = "fp"


class OutputLayer(StrEnum):
    int4 = "int4"
    int8 = "int8"


def quantize(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A GGUF file, a Hugging Face folder or hf://owner/name, a Meta folder "
            "(.pth, params.json), or the word smollm2.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to write.")
    ],
    group_size: Annotated[
        int,
        typer.Option(
            help="Weights that share a scale: 32, 64, 128 or 256.",
            autocompletion=one_of(*GROUP_SIZES),
        ),
    ] = 32,
    embedding: Annotated[
        Embedding,
        typer.Option(
            help="int8 per row, int4 in groups, or float32. keep: int4 where a GGUF file has it as "
            "Q4_0, else int8."
        ),
    ] = Embedding.keep,
    output_layer: Annotated[
        OutputLayer, typer.Option(help="int4 in groups, or int8 per channel.")
    ] = OutputLayer.int4,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Write a floating-point model as an int4 checkpoint: model.safetensors, params.json and
    the tokenizer.

    Example: `quatrain quantize smollm2 -o smollm2-int4`
    """
    from quatrain.quantize import quantize_model
    from quatrain.smollm2 import fetch_smollm2

    stages = shown_stages()
    path = Path(model)
    if model == "smollm2":
        with stages("fetch SmolLM2"):
            path = fetch_smollm2()
    report = quantize_model(
        path, output, group_size, embedding.value, output_layer.value, stages=stages
    )
    if json:
        print_json(dataclasses.asdict(report))
    else:
        _print_report(report)


def _print_report(report: "QuantizeReport") -> None:
    print(f"{report.output}: {report.tensors} tensors, group size {report.group_size}")
    print(f"  size      {human_bytes(report.bytes_in)} -> {human_bytes(report.bytes_out)}")
    for kind, error in report.relative_rms_error.items():
        print(f"  {kind:<10}{error:.2%} relative RMS error")
    if report.exact_groups:
        print(f"  groups    {report.exact_groups} are the source's own int4, kept exactly")
    if report.negative_scales:
        print(
            f"            {report.negative_scales} of them have a negative scale, which Vulkan's "
            "kernels take and XNNPACK's do not: export for XNNPACK rounds those again"
        )
    if not report.tokenizer:
        print("  tokenizer none: the model came without a tokenizer.json")
    seconds = sum(report.seconds.values())
    print(f"  {seconds:.1f} s, peak memory {human_bytes(report.peak_rss_bytes)}")
