"""Predicts what `quantize` and `export` would write."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn, get_args

from quatrain.arithmetic import Backend
from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.files.hub import local_path
from quatrain.checkpoint.files.safetensors import encoded_header
from quatrain.checkpoint.open import is_quantized, open_checkpoint, open_float_model
from quatrain.checkpoint.source_files import source_files
from quatrain.errors import InputError, require_several
from quatrain.export.for_target import choose_for
from quatrain.export.options import ExportOptions
from quatrain.export.plan.programs import ProgramPlan, programs_of
from quatrain.export.plan.weightless import planned_checkpoint, weightless_checkpoint
from quatrain.export.request import ExportRequest
from quatrain.int4 import Scheme
from quatrain.quantize.arguments import refuse_params
from quatrain.quantize.calibration import Calibration
from quatrain.quantize.plan.growth import PartSize, part_sizes, why_it_grows
from quatrain.quantize.plan.plan import Plan
from quatrain.quantize.plan.plan_model import plan_model
from quatrain.quantize.tensor_formats import (
    EmbeddingFormat,
    OutputFormat,
    Rounding,
    check_formats,
)
from quatrain.targets import TargetChoice


@dataclass(frozen=True)
class QuantizeRequest:
    """The options of `quantize`; the fields are arguments of `quantize_model`."""

    group_size: int = 32
    embedding: EmbeddingFormat = "keep"
    output_layer: OutputFormat = "int4"
    method: Rounding | None = None
    base: Path | str | None = None

    def __post_init__(self) -> None:
        check_formats(self.embedding, self.output_layer, self.method)


@dataclass(frozen=True)
class CheckpointPlan:
    """What `quantize` would write for a floating-point model.

    Attributes:
        bytes_in: The size of the model's files.
        weights_bytes: The size of model.safetensors; params.json and the tokenizer come in
            addition.
        parts: The size of each part.
        why_larger: Complete sentences on why this is larger than `bytes_in`; empty if it is not.
    """

    bytes_in: int
    weights_bytes: int
    parts: list[PartSize]
    why_larger: list[str]


@dataclass(frozen=True)
class ProgramsPlan:
    """What `quantize` and `export` would write for a source.

    Attributes:
        source: The path that was read.
        checkpoint: The checkpoint that would be made; None if the source is a checkpoint.
        programs: The programs that `export` would write or refuse.
        reasons: Sentences on why the target's program has these properties.
    """

    source: str
    checkpoint: CheckpointPlan | None
    programs: list[ProgramPlan]
    reasons: list[str]

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data, ready for JSON."""
        return asdict(self)


def plan_programs(
    source: Path | str,
    request: ExportRequest | None = None,
    backends: tuple[Backend, ...] | None = None,
    params: Path | str | None = None,
    quantizing: QuantizeRequest | None = None,
) -> ProgramsPlan:
    """Predict what `quantize` and `export` would write for `source`, its size, and what they
    refuse.

    Reads only headers and parameters, and two rows of a checkpoint's tables to find out whether the
    output layer equals the embedding.

    Args:
        source: As for `open_checkpoint` or `open_float_model`.
        request: The options of `export`. If it names no scheme, both are planned. Its backend must
            be one of `backends`. A target gives one program.
        backends: The backends to plan for if no target is named; None means all that support the
            requested activation dtype.
        params: The params.json of a checkpoint that is a file, if it is not beside it.
        quantizing: The options of `quantize`, for a floating-point source.

    Raises:
        InputError: The source cannot be read or quantized in this way, or an option is wrong or
            does not apply to this kind of source.
    """
    if backends is not None:
        require_several("backends", backends)
    path, request = local_path(source), request or ExportRequest()
    weightless, planned = weightless_source(path, quantizing or QuantizeRequest(), params)
    choice = choose_for(weightless, request)
    programs = programs_of(weightless, _options(request, choice, backends))
    return ProgramsPlan(str(path), planned, programs, choice.reasons if choice else [])


def weightless_source(
    path: Path, quantizing: QuantizeRequest, params: Path | str | None = None
) -> tuple[Checkpoint, CheckpointPlan | None]:
    """(the checkpoint at `path`, or the one that `quantize` would make of the model there, without
    weights; its size, None for a checkpoint). Raises `InputError` as `plan_programs`, and if
    `params` or `quantizing` apply only to the other kind of source."""
    if quantizing.base is None and is_quantized(path):
        usual = QuantizeRequest()
        for name in ("method", "group_size", "embedding", "output_layer"):
            found = getattr(quantizing, name)
            if found not in (getattr(usual, name), "keep"):
                refuse_quantizing(path, name, found)
        return weightless_checkpoint(open_checkpoint(path, params)), None
    refuse_params(path, params)
    return _quantized(path, quantizing)


def refuse_quantizing(checkpoint: Path, name: str, found: Any) -> NoReturn:
    """Raise `InputError`: the argument `name` of `quantize_model`, which is `found`, was given for
    the int4 `checkpoint`."""
    raise InputError(
        f"{name.replace('_', '-')} = {found!r} is for a floating-point model, but {checkpoint} is "
        "an int4 checkpoint, which is not changed; leave it out, or give the original model"
    )


def _quantized(path: Path, asked: QuantizeRequest) -> tuple[Checkpoint, CheckpointPlan]:
    """(the checkpoint that `quantize` would make of the model at `path`, without weights; its
    size)"""
    base = None if asked.base is None else local_path(asked.base)
    model = open_float_model(path, base)
    method = asked.method or ("rtn" if Calibration.usual(model, None) is None else "gptq")
    plan = plan_model(model, asked.group_size, asked.embedding, asked.output_layer, method)
    bytes_in = sum(file.stat().st_size for file in source_files(path, None, base))
    return planned_checkpoint(model, plan, path), _checkpoint_plan(plan, bytes_in)


def _checkpoint_plan(plan: Plan, bytes_in: int) -> CheckpointPlan:
    weights = len(encoded_header(plan.specs)) + sum(spec.nbytes for spec in plan.specs)
    parts = part_sizes(plan)
    return CheckpointPlan(bytes_in, weights, parts, why_it_grows(parts, bytes_in, weights))


def _options(
    request: ExportRequest, choice: TargetChoice | None, backends: tuple[Backend, ...] | None
) -> list[ExportOptions]:
    if choice is not None:
        return [request.options(choice)]
    options, stated = [], request.scheme is not None or request.scheme_plan is not None
    for backend in backends or _backends(request):
        # XNNPACK has no weight-only linears, which is said where they are asked for.
        usual = tuple(Scheme) if backend == "vulkan" else (Scheme.DYNAMIC_INT8,)
        for scheme in (request.scheme,) if stated else usual:
            options.append(replace(request, scheme=scheme, backend=backend).options())
    return options


def _backends(request: ExportRequest) -> tuple[Backend, ...]:
    """Those that can do what is asked for."""
    if request.kv_cache is not None or request.attention_sink is not None:
        return ("xnnpack",)
    vulkan_alone = request.activation_dtype == "fp16" or request.scheme_plan is not None
    return ("vulkan",) if vulkan_alone else get_args(Backend)
