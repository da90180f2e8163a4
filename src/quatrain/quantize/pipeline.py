"""Converts a model or checkpoint to a checkpoint in the pre-quantized layout.

A source is opened, a plan says what happens to each of its tensors, a method converts one tensor
after another, one writer stores them in a file, and one report says what has changed.
"""

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from quatrain.atomic_files import whole_folder
from quatrain.checkpoint.files.hub import local_path
from quatrain.checkpoint.files.safetensors import encoded_header
from quatrain.checkpoint.open import is_quantized
from quatrain.checkpoint.quantizers.in_layout import ASYMMETRIC, IN_GROUPS_OF
from quatrain.errors import InputError
from quatrain.json_files import write_json
from quatrain.quantize.arguments import check_arguments, check_calibration, refuse_params
from quatrain.quantize.calibrated_method import calibrated_method, usual_method
from quatrain.quantize.calibration import Calibration
from quatrain.quantize.convert_options import ConvertOptions
from quatrain.quantize.cost import measured_cost
from quatrain.quantize.distill.method import Distill
from quatrain.quantize.manifest import digested, manifest
from quatrain.quantize.methods import METHODS
from quatrain.quantize.methods.gptq import Gptq
from quatrain.quantize.opened_source import OpenedSource, open_model, open_quantized
from quatrain.quantize.output.output_folder import MANIFEST, OWN_FILES, output_folder
from quatrain.quantize.output.resumable import resumable_folder
from quatrain.quantize.output.writer import write_checkpoint
from quatrain.quantize.report import QuantizeReport, make_report
from quatrain.quantize.tensor_formats import (
    EmbeddingFormat,
    ForBackend,
    OutputFormat,
    Rounding,
    check_formats,
)
from quatrain.stages import Stages

_GROUP_SIZE = 32  # for a source in floating point, unless another is asked for
_NOTHING_ASYMMETRIC = (
    f"--requantize-asymmetric changed no integer: nothing in the source is {ASYMMETRIC}; without "
    "the option, scales keep their type"
)
_NARROW = (
    "Linears whose group size is not a multiple of 32 were requantized, because XNNPACK's "
    "kernels do not support them. Vulkan's kernels support multiples of 16: with --backend "
    "vulkan such linears are kept."
)


def quantize_model(
    model: Path | str,
    output: Path | str,
    group_size: int = _GROUP_SIZE,
    embedding: EmbeddingFormat = "keep",
    output_layer: OutputFormat = "keep",
    stages: Stages | None = None,
    tokenizer: Path | str | None = None,
    base: Path | str | None = None,
    method: Rounding | None = None,
    calibration: Calibration | None = None,
    backend: ForBackend = "any",
) -> QuantizeReport:
    """Quantize a floating-point model to an int4 checkpoint.

    The linears of the layers become int8 [N, K] in [-8, 7], with a float32 scale per group [N, K /
    group size]. Writes model.safetensors, params.json and the tokenizer, completely or not at all;
    the same input gives the same bytes. Keeps one layer in memory at a time, with its activations
    on the calibration text; with "rtn" one tensor.

    Args:
        model: As for `open_float_model`.
        output: The folder to write. An earlier checkpoint there is replaced, including its
            tokenizer.
        group_size: The number of weights of a row that share a scale: 32, 64, 128 or 256, or 16 for
            Vulkan.
        embedding: "int4" in groups, "int8" per row, or "fp". "keep" is int4; with "rtn" it is int8,
            unless a GGUF file stores it as Q4_0.
        output_layer: "int4" in groups or "int8" per channel; "keep" is int4.
        stages: Receives the progress of each stage.
        tokenizer: A tokenizer.json to write instead of the source's own.
        base: The model into which `model`, a LoRA adapter, is merged.
        method: "gptq" keeps the outputs close to the floating-point model's, in minutes. "distill"
            then also trains the scales and norms, on a GPU the integers too, in half an hour or
            more, and resumes an interrupted run. "rtn" rounds each weight to nearest, in seconds.
            None means "gptq", or "rtn" for a model that can neither read nor generate a text.
        calibration: The text for "gptq" and "distill". None means the text that comes with Quatrain
            or, for a model without a tokenizer, text that it generates; for both schemes.
        backend: The backends that will run the checkpoint. Only "vulkan" supports scales of either
            sign, which are more accurate.

    Raises:
        InputError: The model cannot be read or is not divisible into groups, or `output` cannot be
            written or contains something else.
    """
    check_formats(embedding, output_layer, method, backend)
    check_arguments(model, output, group_size, backend=backend, tokenizer=tokenizer)
    check_calibration(method, None if calibration is None else calibration.files)
    stages = stages or Stages()
    path = local_path(model)
    with stages("open the model"):
        planned_for = partial(
            open_model, path, group_size, embedding, output_layer, _local(base), backend
        )
        opened, rounding = _open_for_method(planned_for, _local(tokenizer), method, calibration)
        folder = output_folder(Path(output), opened.files)
    calibrated = calibrated_method(rounding, calibration, opened, stages)
    methods = dict(METHODS)
    if calibrated is not None:
        methods[rounding] = calibrated
    with _trained(calibrated, opened, folder), whole_folder(folder, OWN_FILES) as temporary:
        # Without a key: the folder is new, there is nothing to go on with.
        written = write_checkpoint(opened, temporary, "", stages, methods)
    cost, said = None, [] if calibrated is None else calibrated.notes()
    if calibrated is not None:
        del calibrated, methods[rounding]  # frees the memory of its tables
        cost, unmeasured = measured_cost(opened, folder, stages)
        said += unmeasured
    report = make_report(opened, Path(output), written, stages)
    if method is None and rounding == "rtn":
        said = [
            "The model was rounded to nearest: it can neither read nor generate a text for "
            "calibration."
        ]
    return replace(report, notes=[*report.notes, *said], against_floating_point=cost)


def convert_model(
    source: Path | str,
    output: Path | str,
    options: ConvertOptions | None = None,
    params: Path | str | None = None,
    stages: Stages | None = None,
    tokenizer: Path | str | None = None,
    base: Path | str | None = None,
) -> QuantizeReport:
    """Convert any model or checkpoint to the pre-quantized layout.

    Integers and scales that the layout can hold are kept. Writes model.safetensors, params.json,
    the tokenizer, and quatrain_manifest.json with the SHA-256 of every source file and of the
    result. Keeps one tensor in memory at a time. An interrupted conversion is resumed by the same
    call.

    Args:
        source: As for `open_checkpoint` or `open_float_model`.
        output: The folder to write; it appears when it is complete. An earlier checkpoint there is
            replaced, including its tokenizer.
        options: None keeps everything that the layout can hold.
        params: The params.json of a checkpoint that is a file, if it is not beside it.
        stages: Receives the progress of each stage.
        tokenizer: A tokenizer.json to write instead of the source's own.
        base: The model into which `source`, a LoRA adapter, is merged.

    Raises:
        InputError: The source cannot be read, or the output cannot be written or contains something
            else.
    """
    options, stages, target = options or ConvertOptions(), stages or Stages(), Path(output)
    check_arguments(source, target, options.group_size, params, options.backend, tokenizer)
    with stages("open the source"):
        path, params = local_path(source), Path(params) if params else None
        opened = _open_either(path, params, options, _local(base))
        opened = opened.with_tokenizer(_local(tokenizer))
        options = replace(options, group_size=opened.plan.group_size)
        output_folder(target, opened.files)
    with stages("digest the source"):
        files = [digested(file) for file in opened.files]
    said = json.dumps([version("quatrain"), files, asdict(options)])
    key = hashlib.sha256(encoded_header(opened.plan.specs) + said.encode()).hexdigest()
    with resumable_folder(target, OWN_FILES) as folder:
        with stages("write the tensors"):
            written = write_checkpoint(opened, folder, key, Stages())
        write_json(folder / MANIFEST, manifest(opened, files, asdict(options), written))
    report = make_report(opened, target, written, stages)
    was, said = {error.why for error in opened.errors.values()}, []
    if options.requantize_asymmetric and ASYMMETRIC not in was:
        said = [_NOTHING_ASYMMETRIC]
    if options.backend == "any" and any(why.startswith(IN_GROUPS_OF) for why in was):
        said.append(_NARROW)
    return replace(report, notes=[*report.notes, *said])


def _trained(
    calibrated: Gptq | Distill | None, opened: OpenedSource, folder: Path
) -> AbstractContextManager[None]:
    if isinstance(calibrated, Distill):
        return calibrated.training(opened, folder)
    return nullcontext()


def _local(path: Path | str | None) -> Path | None:
    return None if path is None else local_path(path)


def _open_either(
    path: Path, params: Path | None, options: ConvertOptions, base: Path | None
) -> OpenedSource:
    if base is None and is_quantized(path):
        return open_quantized(
            path, params, options.group_size, options.embedding, options.output_layer,
            options.requantize_asymmetric, options.backend,
        )  # fmt: skip
    refuse_params(path, params)
    if options.requantize_asymmetric:
        raise InputError(
            f"--requantize-asymmetric: {path} is in floating point, so all of it is quantized "
            "anyway; leave out the option"
        )
    group_size = options.group_size or _GROUP_SIZE
    return open_model(
        path, group_size, options.embedding, options.output_layer, base, options.backend
    )


def _open_for_method(
    planned_for: Callable[[Rounding], OpenedSource],
    tokenizer: Path | None,
    method: Rounding | None,
    calibration: Calibration | None,
) -> tuple[OpenedSource, Rounding]:
    """The model, planned for `method` or else for the usual one, and which that is."""
    opened = planned_for(method or "gptq").with_tokenizer(tokenizer)
    rounding = method or usual_method(calibration, opened)
    if method is None and rounding == "rtn":  # planned for the other
        opened = planned_for("rtn").with_tokenizer(tokenizer)
    return opened, rounding
