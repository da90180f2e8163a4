"""`quatrain export`: an int4 checkpoint to a program."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from quatrain.checkpoint.open import detect
from quatrain.commands._before_torch import (
    check_output,
    check_tokenizer,
    import_torch,
    refuse_smollm2,
)
from quatrain.commands.options.export import (
    AllowFallback,
    AttentionSink,
    BackendOption,
    DtypeOption,
    EmbeddingInput,
    HiddenOutput,
    KvCacheOption,
    MaxSeqLen,
    Params,
    PrefillChunkSize,
    SchemePlanFile,
    Target,
    WeightOnlyLinear,
    one_scheme,
    sinks_and_window,
)
from quatrain.commands.options.shared import Debug, Json, Runtime, TokenizerFile
from quatrain.commands.printing.progress import shown_stages
from quatrain.commands.printing.results import print_json, print_next
from quatrain.errors import InputError
from quatrain.human_bytes import human_bytes
from quatrain.int4 import Scheme
from quatrain.json_files import read_object

if TYPE_CHECKING:
    from quatrain.export import ExportReport, ExportRequest


Checkpoint = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT",
        help="A folder that `quantize` or `convert` wrote, or another int4 checkpoint: GPTQ, "
        "AWQ, compressed-tensors, torchao or Meta's, a .safetensors or .pth file, or "
        "hf://owner/name.",
    ),
]
Output = Annotated[
    Path, typer.Option("-o", "--output", metavar="MODEL.PTE", help="The program to write.")
]
LinearScheme = Annotated[
    Literal["8da4w", "weight-only", "auto"] | None,
    typer.Option(
        help="The scheme of all int4 linears. auto chooses for each linear: 8da4w if that "
        "costs little quality and meets no defect of --target, otherwise weight-only. It "
        "writes the plan beside the program.",
    ),
]
MaxKl = Annotated[
    float | None,
    typer.Option(
        metavar="NATS",
        min=0.0,
        help="With --linear-scheme auto: the KL divergence that int8 activations may cost in a "
        "prompt. Default: 0.005.",
    ),
]


def export(
    checkpoint: Checkpoint,
    output: Output,
    params: Params = None,
    weight_only_linear: WeightOnlyLinear = False,
    linear_scheme: LinearScheme = None,
    max_kl: MaxKl = None,
    scheme_plan: SchemePlanFile = None,
    backend: BackendOption = "vulkan",
    activation_dtype: DtypeOption = None,
    max_seq_len: MaxSeqLen = None,
    prefill_chunk_size: PrefillChunkSize = None,
    embedding_input: EmbeddingInput = False,
    hidden_output: HiddenOutput = False,
    kv_cache: KvCacheOption = None,
    attention_sink: AttentionSink = None,
    allow_fallback: AllowFallback = False,
    target: Target = None,
    runtime: Runtime = None,
    tokenizer: TokenizerFile = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Make a program for phones from an int4 checkpoint, in either activation scheme.

    Example: `quatrain export smollm2-int4 -o smollm2.pte --weight-only-linear`
    """
    check_output(output, "-o", checkpoint, params, scheme_plan, tokenizer)
    refuse_smollm2(checkpoint, "export")
    scheme = one_scheme(weight_only_linear, linear_scheme, scheme_plan)
    if max_kl is not None and scheme != "auto":
        raise InputError("--max-kl is the limit of --linear-scheme auto; give both, or neither")
    from quatrain.export import ExportRequest
    from quatrain.export.scheme_plan import DEFAULT_MAX_KL, read_scheme_plan

    request = ExportRequest(
        scheme=None if scheme in (None, "auto") else Scheme(scheme),
        scheme_plan=None if scheme_plan is None else read_scheme_plan(scheme_plan),
        backend=backend,
        activation_dtype=activation_dtype,
        target=target,
        runtime=runtime,
        max_seq_len=max_seq_len,
        prefill_chunk_size=prefill_chunk_size,
        embedding_input=embedding_input,
        hidden_output=hidden_output,
        kv_cache=kv_cache,
        attention_sink=sinks_and_window(attention_sink),
        allow_fallback=allow_fallback,
    )
    detect(checkpoint)
    if params is not None:
        read_object(params)
    check_tokenizer(tokenizer)
    import_torch()
    if scheme == "auto":
        max_kl = DEFAULT_MAX_KL if max_kl is None else max_kl
    report = _exported(checkpoint, output, request, params, tokenizer, max_kl)
    if json:
        print_json(report.as_dict())
    else:
        _print_report(report)
        if params or embedding_input or hidden_output:  # which verify does not take
            print_next("inspect", output)
        else:
            print_next("verify", output, checkpoint)


def _exported(
    checkpoint: Path,
    output: Path,
    request: "ExportRequest",
    params: Path | None,
    tokenizer: Path | None,
    auto_max_kl: float | None,
) -> "ExportReport":
    """Export with progress on standard error; choose each linear's scheme where `auto_max_kl` says
    what int8 activations may cost."""
    from quatrain.export import export_for_target, export_with_auto_schemes

    def explain(reason: str) -> None:
        print(f"  {request.target or 'auto'}: {reason}", file=sys.stderr)

    stages = shown_stages()
    if auto_max_kl is None:
        return export_for_target(checkpoint, output, request, params, stages, explain, tokenizer)
    return export_with_auto_schemes(
        checkpoint, output, request, auto_max_kl, params, stages, explain, tokenizer
    )


def _print_report(report: "ExportReport") -> None:
    from collections import Counter

    seconds = sum(report.seconds.values())
    context = f"context {report.max_seq_len} tokens"
    if report.prefill_chunk_size < report.max_seq_len:
        context += f", {report.prefill_chunk_size} in a call at most"
    print(f"{report.output}: {human_bytes(report.bytes)}, {context}")
    kernels = Counter((row.kernel, row.fallback) for row in report.linears)
    for (kernel, fallback), count in kernels.items():
        print(f"  {count:>4} x {kernel}{' (fallback: dequantized)' if fallback else ''}")
    print(f"  {seconds:.1f} s, peak memory {human_bytes(report.peak_rss_bytes)}")
    for note in report.notes:
        print(f"  note: {note}")
