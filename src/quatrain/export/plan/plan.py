"""What would be made of a model or a checkpoint, before any of it is."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, get_args

from quatrain.arithmetic import Backend
from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.files.hub import local_path
from quatrain.checkpoint.files.safetensors import encoded_header
from quatrain.checkpoint.open import is_quantized, open_checkpoint, open_float_model
from quatrain.checkpoint.source_files import source_files
from quatrain.errors import InputError, require_several
from quatrain.export.for_target import choose_for
from quatrain.export.options import ExportOptions
from quatrain.export.plan.hollow import hollow_checkpoint, planned_checkpoint
from quatrain.export.plan.programs import ProgramPlan, programs_of
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
    """What `quantize` is asked for; the fields are arguments of `quantize_model`."""

    group_size: int = 32
    embedding: EmbeddingFormat = "keep"
    output_layer: OutputFormat = "int4"
    method: Rounding | None = None
    base: Path | str | None = None

    def __post_init__(self) -> None:
        check_formats(self.embedding, self.output_layer, self.method)


@dataclass(frozen=True)
class CheckpointPlan:
    """What `quantize` would write of a model in floating point.

    Attributes:
        bytes_in: Of the files that the model is read from.
        weights_bytes: Of model.safetensors; params.json and the tokenizer come beside it.
        parts: What takes them.
        why_larger: Whole sentences on why that is more than `bytes_in`; empty where it is not.
    """

    bytes_in: int
    weights_bytes: int
    parts: list[PartSize]
    why_larger: list[str]


@dataclass(frozen=True)
class ProgramsPlan:
    """What `quantize` and `export` would make of a source.

    Attributes:
        source: The path that was read.
        checkpoint: What would be quantized; None for a source that is a checkpoint already.
        programs: Each that `export` would write, or refuse.
        reasons: Why a target's program is what it is, a sentence each.
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
    """Say what `quantize` and `export` would write of `source`, how large, and what they refuse.

    Reads headers and parameters alone, and of a checkpoint two rows of its tables: whether its
    output layer is its embedding is said nowhere else.

    Args:
        source: As `open_checkpoint` or `open_float_model` takes it.
        request: What `export` is asked for. A scheme that it leaves open is both, and its backend
            is one of `backends`; a target chooses one program.
        backends: Those to plan for, where no target is named; None is all that compute in the
            activation dtype that is asked for.
        params: The params.json of a checkpoint that is a file, where it is not beside it.
        quantizing: What `quantize` is asked for, for a source in floating point.

    Raises:
        InputError: Where the source cannot be read or quantized so, or an option is wrong or of
            another kind of source.
    """
    if backends is not None:
        require_several("backends", backends)
    path, request = local_path(source), request or ExportRequest()
    hollow, planned = hollow_source(path, quantizing or QuantizeRequest(), params)
    choice = choose_for(hollow, request)
    programs = programs_of(hollow, _options(request, choice, backends))
    return ProgramsPlan(str(path), planned, programs, choice.reasons if choice else [])


def hollow_source(
    path: Path, quantizing: QuantizeRequest, params: Path | str | None = None
) -> tuple[Checkpoint, CheckpointPlan | None]:
    """(the checkpoint at `path`, or what `quantize` makes of the model there, without weights; how
    large that is, None for a checkpoint). Raises `InputError` as `plan_programs`, and where
    `params` or `quantizing` say something of the other kind of source."""
    if quantizing.base is None and is_quantized(path):
        _refuse_quantizing(path, quantizing)
        return hollow_checkpoint(open_checkpoint(path, params)), None
    refuse_params(path, params)
    return _quantized(path, quantizing)


def _refuse_quantizing(path: Path, asked: QuantizeRequest) -> None:
    usual = QuantizeRequest()
    for name in ("method", "group_size", "embedding", "output_layer"):
        found = getattr(asked, name)
        if found not in (getattr(usual, name), "keep"):
            raise InputError(
                f"{name.replace('_', '-')} = {found!r} is of a model in floating point, and {path} "
                "is an int4 checkpoint, which stays as it is; leave it out, or give the model that "
                "it was made of"
            )


def _quantized(path: Path, asked: QuantizeRequest) -> tuple[Checkpoint, CheckpointPlan]:
    """What `quantize` makes of the model at `path`, without weights, and how large that is."""
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
