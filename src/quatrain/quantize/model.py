"""A floating-point model to a checkpoint in the pre-quantized layout, one tensor at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from math import sqrt
from pathlib import Path

import torch

from quatrain.atomic_files import whole_folder
from quatrain.checkpoint.files.hub import local_path
from quatrain.checkpoint.files.memory_map import only_read, was_read
from quatrain.checkpoint.files.safetensors import write_safetensors
from quatrain.checkpoint.float_model import FloatModel
from quatrain.checkpoint.open_model import open_float_model
from quatrain.checkpoint.source_files import source_files
from quatrain.errors import InputError
from quatrain.json_files import write_json
from quatrain.quantize.methods.q4_0 import GROUP_SIZE as Q4_0_GROUP_SIZE
from quatrain.quantize.methods.q4_0 import make_layout_of_q4_0
from quatrain.quantize.methods.round_to_nearest import quantize_rows
from quatrain.quantize.output_folder import OWN_FILES, PARAMS, WEIGHTS, output_folder
from quatrain.quantize.plan import EmbeddingFormat, TensorPlan, plan
from quatrain.stages import Stages, peak_rss_bytes


@dataclass
class QuantizeReport:
    """What `quantize_model` did.

    `relative_rms_error` per kind (embedding, layers, output): the root of the sum of squared
    errors over that of squared weights, against the weights as the source held them.
    `exact_groups`: how many groups the source held as int4 already (GGUF's Q4_0), which are kept
    exactly; `negative_scales`: how many of those have a negative scale.
    """

    source: str
    output: str
    group_size: int
    tensors: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    relative_rms_error: dict[str, float] = field(default_factory=dict)
    exact_groups: int = 0
    negative_scales: int = 0
    tokenizer: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    peak_rss_bytes: int = 0


def quantize_model(
    model: Path | str,
    output: Path | str,
    group_size: int = 32,
    embedding: EmbeddingFormat = "keep",
    output_layer: EmbeddingFormat = "keep",
    stages: Stages | None = None,
) -> QuantizeReport:
    """Write `model` (see `open_float_model`) as a pre-quantized checkpoint into folder `output`.

    The linears of the layers become int4 in groups of `group_size`; `embedding` and
    `output_layer` say how those are stored ('fp' only for the embedding; see `plan`). Writes
    model.safetensors, params.json and the tokenizer, whole or not at all; the same input gives
    the same bytes. Holds one tensor in memory at a time. An earlier checkpoint in `output` is
    replaced, its tokenizer too. Raises `InputError` where the model cannot be read or does not
    divide into groups, or `output` holds something else (see `output_folder`).
    """
    stages = stages or Stages()
    model, target = local_path(model), Path(output)
    with stages("open the model"), only_read():
        source = open_float_model(model)
        plans, arguments = plan(source, group_size, embedding, output_layer)
        output = output_folder(target, source_files(model, None))
    specs = [spec for tensor_plan in plans for spec in tensor_plan.specs(group_size)]
    report = QuantizeReport(str(model), str(target), group_size, len(specs))
    with whole_folder(output, OWN_FILES) as folder:
        # What is small comes first: where it cannot be made, that shows at once.
        report.tokenizer = [file.name for file in source.write_tokenizer(folder)]
        write_json(folder / PARAMS, source.params | {"quantization_args": arguments})
        with one_thread():
            write_safetensors(folder / WEIGHTS, specs, _quantized(source, plans, report, stages))
        report.bytes_out = sum(file.stat().st_size for file in folder.iterdir())
    report.bytes_in = _size(model)
    report.seconds = dict(stages.seconds)
    report.peak_rss_bytes = peak_rss_bytes()
    return report


def _quantized(
    model: FloatModel, plans: list[TensorPlan], report: QuantizeReport, stages: Stages
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of the checkpoint in order, each made when it is asked for."""
    for kind, some in groupby(plans, lambda tensor_plan: tensor_plan.kind):
        error = total = 0.0
        with stages(f"quantize {kind}"):
            for tensor_plan in some:
                of_step, tensors = quantize_tensor(model, tensor_plan, report)
                error, total = error + of_step[0], total + of_step[1]
                specs = tensor_plan.specs(report.group_size)
                yield from zip((spec.name for spec in specs), tensors, strict=True)
                del tensors  # while the next one is made
                was_read(sum(spec.nbytes for spec in specs))
        report.relative_rms_error[kind] = sqrt(error / total) if total else 0.0


def quantize_tensor(
    model: FloatModel, tensor_plan: TensorPlan, report: QuantizeReport
) -> tuple[tuple[float, float], tuple[torch.Tensor, ...]]:
    """((sum of squared errors, sum of squared weights), the tensors that `step` writes).

    Both sums are 0 for a tensor that stays in floating point. Counts in `report` the groups that
    were int4 already.
    """
    int4, group_size = tensor_plan.method == "int4", report.group_size
    try:
        if tensor_plan.method == "fp":
            weight = model.tensors[tensor_plan.source]
            if not torch.isfinite(weight).all():
                raise ValueError("holds a NaN or an infinite value")
            return (0.0, 0.0), (weight,)
        if int4 and group_size == Q4_0_GROUP_SIZE and tensor_plan.source in model.int4_blocks:
            values, scales = model.int4_blocks[tensor_plan.source]()
            squared_weights = make_layout_of_q4_0(values, scales)
            report.exact_groups += scales.numel()
            report.negative_scales += int((scales < 0).sum())
            return (0.0, squared_weights), (values, scales)
        rows_of = model.tensors.rows_of(tensor_plan.source)
        return quantize_rows(rows_of, tensor_plan.shape, group_size if int4 else None)
    except ValueError as error:
        raise InputError(
            f"{model.source}: {tensor_plan.source} {error}; the model is damaged, download it again"
        ) from error


@contextmanager
def one_thread() -> Iterator[None]:
    """The work is thousands of operations of some microseconds on a cache-sized block. Handing
    each to two threads gains little, and where another program wants the second core it costs
    ten times over: 38 s instead of 4 for SmolLM2."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _size(model: Path) -> int:
    if model.is_file():
        return model.stat().st_size
    return sum(file.stat().st_size for file in model.iterdir() if file.is_file())
