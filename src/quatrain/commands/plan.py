"""`quatrain plan`: predicts what quantize and export would write."""

from typing import TYPE_CHECKING, Annotated, get_args

import typer

from quatrain.arithmetic import Backend
from quatrain.checkpoint.open import detect
from quatrain.commands._before_torch import refuse_smollm2
from quatrain.commands.options.export import (
    AllowFallback,
    AttentionSink,
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
from quatrain.commands.options.shared import Debug, Json, Runtime, one_of
from quatrain.commands.printing.checkpoint import print_programs
from quatrain.commands.printing.progress import shown_stages
from quatrain.commands.printing.results import print_json
from quatrain.commands.quantize import Base, Embedding, GroupSize, Method, OutputLayer
from quatrain.errors import InputError
from quatrain.human_bytes import human_bytes
from quatrain.int4 import Scheme
from quatrain.json_files import read_object

if TYPE_CHECKING:
    from quatrain.export.plan.plan import CheckpointPlan, ProgramsPlan

Source = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT|MODEL",
        help="An input of `export`, or of `quantize` except the word smollm2.",
    ),
]
PlannedScheme = Annotated[
    Scheme | None,
    typer.Option(
        "--linear-scheme",
        help="The scheme of all int4 linears; auto is not available because export chooses by "
        "measuring. Default: both, or the target's.",
    ),
]
BackendOption = Annotated[
    Backend | None,
    typer.Option(
        help="The backend to plan for. Default: both.", autocompletion=one_of(*get_args(Backend))
    ),
]


_OF_QUANTIZE = ("group_size", "embedding", "output_layer", "method")


def plan(
    context: typer.Context,
    source: Source,
    weight_only_linear: WeightOnlyLinear = False,
    linear_scheme: PlannedScheme = None,
    scheme_plan: SchemePlanFile = None,
    backend: BackendOption = None,
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
    params: Params = None,
    group_size: GroupSize = 32,
    embedding: Embedding = "keep",
    output_layer: OutputLayer = "int4",
    method: Method = None,
    base: Base = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Predict, from file headers only, what quantize and export would write: bytes, memory,
    refusals.

    Example: `quatrain plan smollm2-int4 --target mali-g715 --runtime 1.4`
    """
    refuse_smollm2(source, "plan")
    from quatrain.export import ExportRequest
    from quatrain.export.scheme_plan import read_scheme_plan

    scheme = one_scheme(weight_only_linear, linear_scheme, scheme_plan)
    on_cpu = target is None and (kv_cache or attention_sink)
    request = ExportRequest(
        scheme=None if scheme is None else Scheme(scheme),
        scheme_plan=None if scheme_plan is None else read_scheme_plan(scheme_plan),
        backend=backend or ("xnnpack" if on_cpu else "vulkan"),
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
    detect(source)
    if params is not None:
        read_object(params)
    with shown_stages()("plan"):
        from quatrain.export.plan.plan import QuantizeRequest, plan_programs

        backends = (backend,) if backend else None
        quantizing = QuantizeRequest(group_size, embedding, output_layer, method, base)
        made = plan_programs(source, request, backends, params, quantizing)
    if made.checkpoint is None:
        _refuse_quantizing(context, source)
    if json:
        print_json(made.as_dict())
    else:
        _print(made)


def _refuse_quantizing(context: typer.Context, checkpoint: str) -> None:
    """Refuse an option of `quantize` that states its default too, which that `checkpoint` may not
    have."""
    for name in _OF_QUANTIZE:
        given = context.get_parameter_source(name)
        if given is not None and given.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')} {context.params[name]}"
            raise InputError(
                f"{option}: is for a floating-point model, but {checkpoint} is an int4 "
                "checkpoint, which is not changed; leave it out, or give the original model"
            )


def _print(made: "ProgramsPlan") -> None:
    for reason in made.reasons:
        print(f"  {reason}")
    if made.checkpoint is not None:
        _print_checkpoint(made.checkpoint)
    print_programs(made.programs)


def _print_checkpoint(planned: "CheckpointPlan") -> None:
    """Print what a checkpoint takes on disk, by part, and why that is more than its source."""
    before, after = human_bytes(planned.bytes_in), human_bytes(planned.weights_bytes)
    print(f"checkpoint: {before} -> {after} (model.safetensors)")
    for part in planned.parts:
        print(
            f"  {part.part:<10}{part.format:<5} integers {human_bytes(part.integers)}, scales "
            f"{human_bytes(part.scales)}, float32 {human_bytes(part.floats)}"
        )
    for reason in planned.why_larger:
        print(f"  note: {reason}")
