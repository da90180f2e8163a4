"""`quatrain quantize`: a floating-point model to an int4 checkpoint."""

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from quatrain.commands._before_torch import fetched_smollm2, import_torch, is_smollm2
from quatrain.commands.options.shared import Debug, Json, TokenizerFile, one_of
from quatrain.commands.printing.checkpoint import planned, print_checkpoint, print_programs_and_next
from quatrain.commands.printing.progress import shown_stages
from quatrain.commands.printing.results import hint_at_resuming, print_json
from quatrain.int4 import GROUP_SIZES, XNNPACK_GROUP_SIZES, Scheme
from quatrain.quantize.tensor_formats import EmbeddingFormat, ForBackend, Rounding

if TYPE_CHECKING:
    from quatrain.quantize.calibration import Calibration
    from quatrain.quantize.cost import Cost
    from quatrain.quantize.report import QuantizeReport

_JSON_KEYS = (
    "source", "output", "group_size", "tensors", "bytes_in", "bytes_out", "parts", "why_larger",
    "relative_rms_error", "exact_groups", "negative_scales", "tokenizer_files", "notes", "seconds",
    "peak_rss_bytes", "against_floating_point", "programs",
)  # fmt: skip


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A GGUF file, a Hugging Face folder or hf://owner/name, a Meta folder "
        "(.pth, params.json), or the word smollm2.",
    ),
]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="The folder to write.")]
GroupSize = Annotated[
    int,
    typer.Option(
        help="The number of weights that share a scale: 32, 64, 128 or 256. --backend vulkan "
        "also takes 16, which is more accurate but larger.",
        autocompletion=one_of(*GROUP_SIZES),
    ),
]
Embedding = Annotated[
    EmbeddingFormat,
    typer.Option(
        help="int8 per row, int4 in groups, or fp: float32. keep: int4; with rtn int8, unless "
        "a GGUF file stores it as Q4_0."
    ),
]
Base = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="If MODEL is a LoRA adapter: the Hugging Face model to merge it into.",
    ),
]
OutputLayer = Annotated[
    Literal["int4", "int8"], typer.Option(help="int4 in groups, or int8 per channel.")
]
Method = Annotated[
    Rounding | None,
    typer.Option(
        metavar="METHOD",
        help="gptq: keep the outputs close to the floating-point model's, in minutes. distill: "
        "then also train scales and norms, on a GPU the integers too, in half an hour or "
        "more. rtn: round each weight to nearest, in seconds. Default: gptq, if the model "
        "can read or write a text.",
    ),
]
For = Annotated[
    Literal["8da4w", "weight-only", "both"] | None,
    typer.Option(
        "--for", help="The activation scheme that gptq and distill optimize for. Default: both."
    ),
]
CalibrationText = Annotated[
    list[Path] | None,
    typer.Option(
        "--calibration",
        metavar="FILE",
        help="A text for gptq and distill that is similar to what the model will read; may be "
        "repeated. Default: a mixed text that comes with Quatrain; without a tokenizer, "
        "text that the model generates.",
    ),
]
ForBackendOption = Annotated[
    ForBackend,
    typer.Option(
        "--backend",
        help="The backends that will run the checkpoint. vulkan: scales of either sign, which is "
        "more accurate, but not for XNNPACK, where half of the groups would be requantized.",
    ),
]
SelfGenerated = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Instead of a text, calibrate on N tokens that the model generates."
    ),
]


def quantize(
    model: Model,
    output: Output,
    group_size: GroupSize = 32,
    embedding: Embedding = "keep",
    output_layer: OutputLayer = "int4",
    method: Method = None,
    scheme: For = None,
    calibration: CalibrationText = None,
    self_generated: SelfGenerated = None,
    backend: ForBackendOption = "any",
    tokenizer: TokenizerFile = None,
    base: Base = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Quantize a floating-point model to an int4 checkpoint: model.safetensors, params.json and the
    tokenizer.

    Example: `quatrain quantize smollm2 -o smollm2-int4`
    """
    from quatrain.quantize.arguments import check_arguments, check_calibration

    fetched = is_smollm2(model)
    check_arguments(
        None if fetched else model, output, group_size, backend=backend, tokenizer=tokenizer
    )
    said = bool(calibration) or self_generated is not None or scheme is not None
    check_calibration(method, (calibration or ()) if said else None)

    import_torch()
    from quatrain.quantize.distill.method import working_folder
    from quatrain.quantize.pipeline import quantize_model

    stages = shown_stages()
    path = fetched_smollm2(stages) if fetched else model
    text = _calibration(calibration, self_generated, scheme) if said else None
    with hint_at_resuming(working_folder(output)) if method == "distill" else nullcontext():
        report = quantize_model(
            path, output, group_size, embedding, output_layer, stages, tokenizer, base, method,
            text, backend,
        )  # fmt: skip
    programs = planned(output, backend)
    if json:
        said = asdict(report) | {
            "relative_rms_error": report.relative_rms_error_by_part,
            "programs": [program.as_dict() for program in programs],
        }
        print_json({key: said[key] for key in _JSON_KEYS})
    else:
        print_checkpoint(report, _details(report), "model")
        print_programs_and_next(output, programs)


def _calibration(
    files: list[Path] | None, self_generated: int | None, scheme: str | None
) -> "Calibration":
    """The calibration that the options describe."""
    from quatrain.quantize.calibration import Calibration

    only = None if scheme in (None, "both") else Scheme(scheme)
    return Calibration(tuple(files or ()), self_generated, only)


def _details(report: "QuantizeReport") -> list[str]:
    lines = [
        f"  {kind:<10}{error:.2%} relative RMS error"
        for kind, error in report.relative_rms_error_by_part.items()
    ]
    if report.against_floating_point is not None:
        lines.append(_cost(report.against_floating_point))
    if report.exact_groups:
        lines.append(f"  groups    {report.exact_groups} are the source's own int4, kept exactly")
    if report.negative_scales:
        again = report.group_size in XNNPACK_GROUP_SIZES
        lines.append(
            f"  groups    {report.negative_scales} have a negative scale, which Vulkan's kernels "
            "take and XNNPACK's do not" + (": export for XNNPACK rounds those again" * again)
        )
    return lines


def _cost(cost: "Cost") -> str:
    ratio = f"{cost.perplexity_ratio:.3f} +- {cost.perplexity_ratio_error:.3f}"
    return (
        f"  cost      perplexity {ratio} x floating point, KL {cost.kl:.3f} nats, same top-1 "
        f"{cost.top1_agreement:.1%} ({cost.tokens} tokens held out, weight-only)"
    )
