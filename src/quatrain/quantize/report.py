"""The report on a checkpoint that was written."""

from dataclasses import dataclass
from math import prod
from pathlib import Path

from quatrain.checkpoint.float_model import FloatModel
from quatrain.int4 import XNNPACK_GROUP_SIZES
from quatrain.quantize.cost import Cost
from quatrain.quantize.opened_source import OpenedSource
from quatrain.quantize.output.output_folder import OWN_FILES
from quatrain.quantize.output.writer import Written
from quatrain.quantize.plan.growth import PartSize, part_sizes, why_it_grows
from quatrain.quantize.quantized_tensor import RoundingError, relative_rms
from quatrain.short_lists import and_more
from quatrain.stages import Stages, peak_rss_bytes


@dataclass(frozen=True)
class RoundedLinear:
    """A linear of a quantized source that was quantized again.

    Attributes:
        name: Its name in the source.
        was: How the source stores it: "in floating point", "8 bits", "asymmetric or in act-order".
        relative_rms_error: The relative error of the new values.
    """

    name: str
    was: str
    relative_rms_error: float


@dataclass(frozen=True)
class QuantizeReport:
    """The result of `quantize_model` or `convert_model`.

    Attributes:
        source: The path that was read.
        output: The folder that was written.
        group_size: The number of weights of a row that share a scale.
        tensors: The number of tensors written.
        resumed_at: The number of tensors that an earlier attempt had written.
        bytes_in: The size of the source's files that were read.
        bytes_out: The size of all files written.
        weights_bytes: The size of model.safetensors.
        parts: The size of each part, for a floating-point source; empty for others.
        why_larger: Complete sentences on why this is larger than `bytes_in`; empty if it is not,
            and for a quantized source.
        rounded: The number of matrices that differ from the source's.
        relative_rms_error: Their error: the root of the sum of squared errors divided by the sum of
            squared weights.
        relative_rms_error_by_part: The same for all weights of the embedding, the layers and the
            output, for a floating-point source; empty for others.
        exact_groups: The number of groups that the source stores as int4 (such as GGUF's Q4_0) and
            that are kept exactly.
        negative_scales: The number of groups with a negative scale.
        rounded_linears: The linears of a quantized source that were quantized again.
        tokenizer_files: The names of the tokenizer files, none if the source has no tokenizer.
        notes: Complete sentences about what the source states wrongly or lacks, and about how it
            was rounded.
        seconds: Wall time by stage.
        peak_rss_bytes: The largest memory use of the process so far.
        against_floating_point: The loss of quality on a held-out text. None if it was not measured:
            with "rtn", in `convert_model`, or without a tokenizer.
    """

    source: str
    output: str
    group_size: int
    tensors: int
    resumed_at: int
    bytes_in: int
    bytes_out: int
    weights_bytes: int
    parts: list[PartSize]
    why_larger: list[str]
    rounded: int
    relative_rms_error: float
    relative_rms_error_by_part: dict[str, float]
    exact_groups: int
    negative_scales: int
    rounded_linears: list[RoundedLinear]
    tokenizer_files: list[str]
    notes: list[str]
    seconds: dict[str, float]
    peak_rss_bytes: int
    against_floating_point: Cost | None = None


def rounded_linears(opened: OpenedSource) -> list[RoundedLinear]:
    """The linears of a quantized source that were quantized again, in the order of their names."""
    return [
        RoundedLinear(name, error.why, float(f"{relative_rms([error]):.6g}"))
        for name, error in sorted(opened.errors.items())
        if error.why and error.squared_error
    ]


def _wider_groups(opened: OpenedSource) -> list[str]:
    """Notes if int4 values of the source are requantized into wider groups."""
    source, plan = opened.source, opened.plan
    if not isinstance(source, FloatModel):
        return []
    sizes = {
        blocks.group_size
        for tensor in plan.tensors
        if (blocks := source.int4_blocks.get(tensor.source)) and blocks.group_size < plan.group_size
    }
    return [
        f"Its int4 values in groups of {size} were requantized into larger groups; they are kept "
        f"with --group-size {size}{'' if size in XNNPACK_GROUP_SIZES else ' --backend vulkan'}."
        for size in sorted(sizes)
    ]


# Fewer neighbouring rows of a table may be tokens that are kept free.
_MANY_TOKENS = 64
_NEVER_WRITTEN = (
    "as in a file that was only partly written. Unless the model was made this way, download it "
    "again."
)


def make_report(
    opened: OpenedSource, output: Path, written: Written, stages: Stages
) -> QuantizeReport:
    """The report once the whole checkpoint is in `output`."""
    plan, errors, rounded = opened.plan, opened.errors, opened.rounded()
    parts: dict[str, list[RoundingError]] = {}
    if isinstance(opened.source, FloatModel):
        for tensor in plan.tensors:
            of_part = parts.setdefault(tensor.part, [])
            of_part += [errors[tensor.target]] if tensor.target in errors else []
    sizes = part_sizes(plan) if isinstance(opened.source, FloatModel) else []
    bytes_in = sum(file.stat().st_size for file in opened.files)
    own = [output / name for name in OWN_FILES]
    return QuantizeReport(
        source=str(opened.path),
        output=str(output),
        group_size=plan.group_size,
        tensors=len(plan.specs),
        resumed_at=written.resumed_at,
        bytes_in=bytes_in,
        bytes_out=sum(file.stat().st_size for file in own if file.is_file()),
        weights_bytes=written.bytes,
        parts=sizes,
        why_larger=why_it_grows(sizes, bytes_in, written.bytes),
        rounded=len(rounded),
        relative_rms_error=relative_rms(rounded),
        relative_rms_error_by_part={part: relative_rms(of) for part, of in parts.items()},
        exact_groups=sum(error.exact_groups for error in errors.values()),
        negative_scales=sum(error.negative_scales for error in errors.values()),
        rounded_linears=rounded_linears(opened),
        tokenizer_files=written.tokenizer,
        notes=[*written.notes, *_wider_groups(opened), *_without_weights(opened)],
        seconds=dict(stages.seconds),
        peak_rss_bytes=peak_rss_bytes(),
    )


def _without_weights(opened: OpenedSource) -> list[str]:
    """Notes on matrices that contain only zeros, and on such rows: in linears, or many in a row
    within a table. At its end, a table has such rows if it is longer than the vocabulary."""
    errors, notes = opened.errors, []
    empty = [name for name, error in errors.items() if not error.squared_weight]
    if empty:
        notes = [f"{and_more(empty, 3)}: all weights are 0, {_NEVER_WRITTEN}"]
    in_part = [
        f"{error.zero_rows} of {prod(tensor.shape[:-1])} rows of {tensor.target}"
        for tensor in opened.plan.tensors
        if tensor.specs
        and (error := errors.get(tensor.target))
        and error.zero_rows >= (1 if tensor.part == "layers" else _MANY_TOKENS)
        and error.squared_weight
    ]
    if in_part:
        notes.append(f"{and_more(in_part, 3)}: all weights of these rows are 0, {_NEVER_WRITTEN}")
    return notes
