"""`quatrain export`: an int4 checkpoint to a program."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from quatrain.arithmetic import ActivationDtype, Backend
from quatrain.checkpoint.open import detect
from quatrain.commands._common import (
    Debug,
    Json,
    TokenizerFile,
    check_no_word,
    check_output,
    human_bytes,
    known_targets,
    print_json,
)
from quatrain.commands._progress import shown_stages
from quatrain.int4 import Scheme
from quatrain.json_files import read_object

if TYPE_CHECKING:
    from quatrain.export import ExportReport, ExportRequest


Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A folder that quatrain quantize wrote, or a .safetensors or .pth file in the "
        "pre-quantized layout.",
    ),
]
Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="MODEL.PTE", help="The program to write.")
]
Params = Annotated[
    Path | None, typer.Option(metavar="FILE", help="params.json, if not beside the checkpoint.")
]
WeightOnlyLinear = Annotated[
    bool,
    typer.Option(
        "--weight-only-linear",
        help="Floating-point activations times dequantized int4 weights, in place of 8da4w's "
        "dynamic int8 activations. Same checkpoint, another kernel.",
    ),
]
BackendOption = Annotated[Backend, typer.Option(help="What runs the program.")]
DtypeOption = Annotated[
    ActivationDtype | None,
    typer.Option(
        help="What the Vulkan delegate computes and stores in; default fp32, or the target's."
    ),
]
Target = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        help="Choose scheme, dtype and limits for a GPU, such as mali-g715, or a phone, say why, "
        "and refuse what would fail there. An unknown name is answered with all that are known.",
        autocompletion=known_targets,
    ),
]
Runtime = Annotated[
    str | None,
    typer.Option(metavar="VERSION", help="The ExecuTorch release in the app, such as 1.3."),
]
MaxSeqLen = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Context in tokens; default: the model's own, at most 2048.", min=2
    ),
]
EmbeddingInput = Annotated[
    bool, typer.Option("--embedding-input", help="Take [1, T, dim] embeddings, not tokens.")
]
HiddenOutput = Annotated[
    bool, typer.Option("--hidden-output", help="Give final hidden states, not logits.")
]
AllowFallback = Annotated[
    bool,
    typer.Option(
        "--allow-fallback", help="Let a linear without a kernel run dequantized, and say so."
    ),
]


def export(
    checkpoint: Checkpoint,
    output: Output,
    params: Params = None,
    weight_only_linear: WeightOnlyLinear = False,
    backend: BackendOption = "vulkan",
    activation_dtype: DtypeOption = None,
    max_seq_len: MaxSeqLen = None,
    embedding_input: EmbeddingInput = False,
    hidden_output: HiddenOutput = False,
    allow_fallback: AllowFallback = False,
    target: Target = None,
    runtime: Runtime = None,
    tokenizer: TokenizerFile = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make the program a phone runs from an int4 checkpoint, in either activation scheme.

    Example: `quatrain export smollm2-int4 -o smollm2.pte --weight-only-linear`
    """
    check_output(output, "-o")
    check_no_word(checkpoint, "export")
    from quatrain.export import ExportRequest

    request = ExportRequest(
        scheme=Scheme.WEIGHT_ONLY if weight_only_linear else None,
        backend=backend,
        activation_dtype=activation_dtype,
        target=target,
        runtime=runtime,
        max_seq_len=max_seq_len,
        embedding_input=embedding_input,
        hidden_output=hidden_output,
        allow_fallback=allow_fallback,
    )
    detect(checkpoint)
    if params is not None:
        read_object(params)
    if tokenizer is not None:
        from quatrain.tokenizer.files import require_tokenizer

        require_tokenizer(tokenizer)
    run_export(checkpoint, output, request, params, tokenizer, json)


def run_export(
    checkpoint: Path,
    output: Path,
    request: "ExportRequest",
    params: Path | None,
    tokenizer: Path | None,
    json: bool,
) -> None:
    """Export with progress on standard error, and print the report."""
    from quatrain.export import export_for_target

    def explain(reason: str) -> None:
        print(f"  {request.target}: {reason}", file=sys.stderr)

    stages = shown_stages()
    report = export_for_target(checkpoint, output, request, params, stages, explain, tokenizer)
    if json:
        print_json(report.as_dict())
    else:
        _print_report(report)


def _print_report(report: "ExportReport") -> None:
    from collections import Counter

    seconds = sum(report.seconds.values())
    print(f"{report.output}: {human_bytes(report.bytes)}, context {report.max_seq_len} tokens")
    kernels = Counter((row.kernel, row.fallback) for row in report.linears)
    for (kernel, fallback), count in kernels.items():
        print(f"  {count:>4} x {kernel}{' (fallback: dequantized)' if fallback else ''}")
    print(f"  {seconds:.1f} s, peak memory {human_bytes(report.peak_rss_bytes)}")
    for note in report.notes:
        print(f"  note: {note}")
