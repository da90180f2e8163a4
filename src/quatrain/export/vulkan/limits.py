"""Refuses, before any work, what ExecuTorch's Vulkan delegate does not support, computes wrongly or
does not load."""

from dataclasses import replace

from quatrain.backbone.config import BackboneConfig
from quatrain.backbone.pruned_vocabulary import embedding_rows
from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.layout import PER_LAYER
from quatrain.errors import InputError
from quatrain.export.kernels.assignment import LinearRow
from quatrain.export.options import ExportOptions
from quatrain.export.vulkan.call_length import ROWS, longest_call
from quatrain.int4 import EMBEDDED_TOGETHER, Scheme
from quatrain.linear.int4 import OF_LAST_TOKEN
from quatrain.program.vulkan.linear_kernels import (
    DYNAMIC_LINEAR,
    WRONG_GROUP_SUMS,
    group_sums_are_right,
)
from quatrain.targets import PlannedProgram
from quatrain.targets.refusals import met_by_8da4w, met_in_uneven_calls
from quatrain.targets.runtimes import needs_older_forms

# Elements of a floating-point embedding that the partitioner takes: `register_embedding` of
# op_registry.py, DEFAULT_BUFFER_LIMIT of utils.py, ExecuTorch 1.5. int4 ones it does not count.
LARGEST_FLOAT_EMBEDDING = 128 * 1024 * 1024


def check_limits(opened: Checkpoint, options: ExportOptions, context: int) -> None:
    """Raise `InputError`, with all problems, if the Vulkan backend cannot load or compute `opened`
    with a context of that many tokens."""
    problems = [
        _group_problem(opened, options),
        _rotary_problem(opened.config, options),
        _attention_problem(opened.config, options, context),
        _call_problem(opened.config, options, context),
        _embedding_problem(opened, options),
        _embedding_width_problem(opened, options),
        _per_layer_problem(opened, options),
    ]
    found = [problem for problem in problems if problem]
    if found:
        raise InputError(f"{opened.source}: {' Besides, '.join(found)}")


def check_8da4w(rows: list[LinearRow], config: BackboneConfig, options: ExportOptions) -> None:
    """Raise `InputError` if the doctor would find that a defect of the target's runtime applies to
    one of `rows` in 8da4w."""
    dynamic = [row for row in rows if row.kernel == DYNAMIC_LINEAR]
    if options.target is None or not dynamic:
        return
    of_prompts = [row for row in dynamic if row.name not in OF_LAST_TOKEN]
    narrowest = min(of_prompts or dynamic, key=lambda row: row.in_features)
    planned = PlannedProgram(
        rows=longest_call(config) if of_prompts else 1, channels=narrowest.in_features
    )
    found = met_by_8da4w(options.target, options.activation_dtype, planned)
    if found:
        remedy = "Export with --weight-only-linear, or leave the choice to --target"
        if options.scheme_plan is not None:
            remedy = (
                f"Make {narrowest.name} and similar linears weight-only in "
                f"{options.scheme_plan.source}"
            )
        raise InputError(f"would fail on {options.target.name}: {found}. {remedy}")


def _on_the_cpu(options: ExportOptions) -> str:
    """The option that exports for the CPU, and the options to leave out with it."""
    weight_only = options.scheme == Scheme.WEIGHT_ONLY
    given = ["--target"] * (options.target is not None)
    given += ["--weight-only-linear"] * (weight_only and options.target is None)
    given += ["--activation-dtype"] * (options.activation_dtype == "fp16" and not given)
    return "--backend xnnpack" + (f" (without {' and '.join(given)})" if given else "")


def _group_problem(opened: Checkpoint, options: ExportOptions) -> str | None:
    if options.scheme != Scheme.DYNAMIC_INT8 or group_sums_are_right(opened.group_size):
        return None
    return (
        f"the group size is {opened.group_size}, and {WRONG_GROUP_SUMS}. "
        "Export with --weight-only-linear, or make the checkpoint again with quatrain "
        "quantize or convert --group-size 128."
    )


def _rotary_problem(config: BackboneConfig, options: ExportOptions) -> str | None:
    """Sources: `apply_rotary_emb_hf`, which checks for it, and `rotary_embedding.glsl`, whose
    threads write eight channels or nothing, of ExecuTorch 1.0 to 1.5."""
    layers = [config.layer(index) for index in range(config.n_layers)]
    rotating = (layer for layer in layers if layer.rope != "none")
    of_latent = config.qk_rope_head_dim
    for head_dim in sorted({of_latent if one.latent else one.head_dim for one in rotating}):
        rotated = int(head_dim * config.partial_rotary_factor)
        if config.use_hf_rope and rotated % 8:
            return (
                f"{rotated} channels of each head are rotated (head_dim {head_dim}, "
                f"partial_rotary_factor {config.partial_rotary_factor:g}), but a phone does not "
                "load a program with a rotary width that is not a multiple of 8. Use "
                f"{_on_the_cpu(options)}."
            )
        if not config.use_hf_rope and head_dim % 8:
            return (
                f"head_dim is {head_dim}, but a phone rotates heads in Meta's layout (use_hf_rope "
                f"false) wrongly unless head_dim is a multiple of 8. Use {_on_the_cpu(options)}."
            )
    return None


def _attention_problem(config: BackboneConfig, options: ExportOptions, context: int) -> str | None:
    """The problem of attention or convolutions with operators that older runtimes lack."""
    in_context = replace(config, max_seq_len=context)
    layers = [in_context.layer(index) for index in range(config.n_layers)]
    masked = [layer for layer in layers if layer.attention_window or config.changes_scores]
    release = options.target.runtime if options.target else None
    if masked and needs_older_forms(release):
        return (
            "attention has a window, a chunk, a soft cap or sinks, for which ExecuTorch's Vulkan "
            f"runtime {release} lacks operators; ship a later runtime, or use "
            f"{_on_the_cpu(options)}."
        )
    if any(layer.conv or layer.recurs for layer in layers) and needs_older_forms(release):
        spaces = any(layer.mamba for layer in layers)
        what = "state spaces" if spaces else "short convolutions or gated delta rules"
        return (
            f"layers have {what}, for which ExecuTorch's Vulkan runtime {release} lacks "
            f"operators; ship a later runtime, or use {_on_the_cpu(options)}."
        )
    if any(layer.attention_sinks for layer in layers):
        return (
            f"attention_sinks is {config.attention_sinks}, but a Vulkan program keeps only the "
            f"last tokens of a window. Use {_on_the_cpu(options)}."
        )
    if config.changes_scores and any(layer.shares_kv for layer in layers):
        return (
            "num_kv_shared_layers: layers use the keys of a layer whose attention has a soft cap "
            f"or sinks, which cannot be exported to Vulkan; use {_on_the_cpu(options)}."
        )
    return None


def _call_problem(config: BackboneConfig, options: ExportOptions, context: int) -> str | None:
    """The problem of attention until ExecuTorch 1.4 after a call of the last lengths, where the
    longest is not a multiple of `ROWS`."""
    if options.target is None or not options.examine:
        return None
    chunk = options.prefill_chunk_size
    config = replace(config, max_seq_len=context, prefill_chunk_size=chunk)
    layers = [config.layer(index) for index in range(config.n_layers)]
    by_kernel = any(one.attends and not one.attention_window for one in layers)
    longest = longest_call(config)
    if not by_kernel or config.changes_scores or longest % ROWS == 0:
        return None
    found = met_in_uneven_calls(options.target)
    if not found:
        return None
    remedy = f"--prefill-chunk-size {longest - longest % ROWS}"
    if longest < ROWS:
        remedy = f"{'--max-seq-len' if longest == context else '--prefill-chunk-size'} {ROWS}"
    return (
        f"would fail on {options.target.name}, where a call takes at most {longest} tokens: "
        f"{found}. Export with {remedy}."
    )


def _per_layer_problem(opened: Checkpoint, options: ExportOptions) -> str | None:
    config = opened.config
    if not config.per_layer_dim or f"{PER_LAYER}.scales" in opened.tensors:
        return None
    width = config.n_layers * config.per_layer_dim
    return (
        "the model has an embedding for each layer (per_layer_dim), a table of "
        f"{config.vocab_size} x {width}, in floating point, but a Vulkan program reads such a "
        "table on the CPU, in int4. Quantize the model again without --embedding fp, or use "
        f"{_on_the_cpu(options)}."
    )


def _embedding_problem(opened: Checkpoint, options: ExportOptions) -> str | None:
    """The problem of a table with too many elements that is, or would be, stored in floating
    point."""
    config = opened.config
    if options.embedding_input or not config.apply_embedding:
        return None
    rows = embedding_rows(config)
    if rows * config.dim <= LARGEST_FLOAT_EMBEDDING:
        return None
    kind = opened.embedding_kind
    if kind == "int4":
        return None
    stored = "stored" if kind == "fp" else f"{kind} here but written"
    remedy = "Quantize the model again with --embedding int4"
    if kind == "fp":
        remedy = "Convert the checkpoint with quatrain convert --embedding int4"
    release = options.target.runtime if options.target else None
    if needs_older_forms(release):
        remedy += f" and ship a runtime later than {release}, which has no int4 embedding"
    return (
        f"the embedding, {rows} x {config.dim}, is {stored} in floating point, but ExecuTorch's "
        f"Vulkan delegate supports at most {LARGEST_FLOAT_EMBEDDING} elements. {remedy}; or use "
        f"{_on_the_cpu(options)}."
    )


def _embedding_width_problem(opened: Checkpoint, options: ExportOptions) -> str | None:
    """The problem of an int4 table whose width the kernel does not support, which groups of 16
    allow."""
    config = opened.config
    is_read = not options.embedding_input and config.apply_embedding
    older = needs_older_forms(options.target.runtime if options.target else None)
    if older or not is_read or opened.embedding_kind != "int4":
        return None
    if config.dim % EMBEDDED_TOGETHER == 0:
        return None
    return (
        f"the int4 embedding has rows of {config.dim}, but ExecuTorch's Vulkan runtime supports "
        f"only multiples of {EMBEDDED_TOGETHER}. Quantize the model again with --embedding int8."
    )
