"""`--linear-scheme auto`: 8da4w where it costs little quality and meets no defect, otherwise
weight-only.

A linear is weight-only if a defect of the target's 8da4w kernel affects it. Of the others, those
for which int8 activations cost most become weight-only, until the rest costs no more than allowed;
all of them where 8da4w is measured to be the slower on the target.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from quatrain.atomic_files import whole_file
from quatrain.backbone.build import build_backbone
from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import InputError
from quatrain.export.exporter import context_length
from quatrain.export.for_target import choose_for, export_for_target, planned_program
from quatrain.export.report import ExportReport
from quatrain.export.request import ExportRequest
from quatrain.export.scheme_plan import DEFAULT_MAX_KL, PlannedLinear, SchemePlan
from quatrain.export.scheme_sensitivity import SchemeSensitivity, int4_linears
from quatrain.export.vulkan.limits import check_limits
from quatrain.int4 import CHANNELS_TOGETHER, Scheme
from quatrain.linear.int4 import Int4Linear, freeze_weights
from quatrain.program.vulkan.linear_kernels import WRONG_GROUP_SUMS, group_sums_are_right
from quatrain.quantize.calibration import DEFAULT_TEXT, rows_of_text, spread_texts
from quatrain.stages import Stages, installed_memory_bytes
from quatrain.targets import TargetChoice, choose_for_target
from quatrain.targets.refusals import met_by_8da4w
from quatrain.tokenizer import Tokenizer, beside, chosen_tokenizer

TEXTS, LENGTH = 4, 64  # tokens of the text that is read


def export_with_auto_schemes(
    checkpoint: Path | str,
    output: Path | str,
    request: ExportRequest,
    max_kl: float = DEFAULT_MAX_KL,
    params: Path | str | None = None,
    stages: Stages | None = None,
    explain: Callable[[str], None] | None = None,
    tokenizer: Path | None = None,
) -> ExportReport:
    """Choose each int4 linear's scheme, write the program so, and the plan beside it, as
    `<stem>.schemes.toml`.

    Args:
        checkpoint: As for `export_for_target`, like the rest.
        output: The .pte file to write.
        request: The request, except the schemes.
        max_kl: What int8 activations may cost a prompt: the mean KL divergence, in nats, from the
            same checkpoint all weight-only.
        params: The params.json of a checkpoint that is a file, if it is not beside it.
        stages: Receives the progress of each stage.
        explain: Called with each reason for the choices, a sentence.
        tokenizer: A tokenizer.json in place of the checkpoint's own.

    Raises:
        InputError: As `export_for_target`; if the checkpoint has no tokenizer, or the request names
            schemes or another backend than Vulkan.
    """
    output, stages = Path(output), stages or Stages()
    if request.backend != "vulkan":
        raise InputError(
            f"--linear-scheme auto: --backend {request.backend} has only 8da4w kernels, so there "
            "is nothing to choose; leave one of them out"
        )
    stated = request.scheme or (request.scheme_plan and request.scheme_plan.source)
    if stated:
        raise InputError(
            f"--linear-scheme auto chooses each linear's scheme, but {stated} sets it; leave one "
            "of them out"
        )
    opened = open_checkpoint(checkpoint, params)
    scheme = Scheme.DYNAMIC_INT8 if group_sums_are_right(opened.group_size) else Scheme.WEIGHT_ONLY
    options = replace(request.options(choose_for(opened, request)), scheme=scheme)
    check_limits(opened, options, context_length(opened, request.max_seq_len))
    plan, choice = _choose(opened, request, max_kl, stages, tokenizer)
    if explain:
        for reason in (*(choice.reasons if choice else ()), *plan.notes):
            explain(reason)
    dtype = choice.activation_dtype if choice else request.activation_dtype
    planned = replace(request, scheme_plan=plan, activation_dtype=dtype)
    written = beside(output, "schemes.toml")
    with whole_file(written) as temporary:
        temporary.write_text(plan.as_toml(), encoding="utf-8")
        report = export_for_target(checkpoint, output, planned, params, stages, None, tokenizer)
    report.notes.append(f"{written.name} lists the scheme of each linear, and why it was chosen.")
    return report


def _choose(
    opened: Checkpoint,
    request: ExportRequest,
    max_kl: float,
    stages: Stages,
    tokenizer: Path | None,
) -> tuple[SchemePlan, TargetChoice | None]:
    """The plan; and what is chosen for a target, where one decides."""
    if not group_sums_are_right(opened.group_size):
        note = f"Weight-only: groups of {opened.group_size}: {WRONG_GROUP_SUMS}."
        return SchemePlan({}, Scheme.WEIGHT_ONLY, [note]), None
    tokens = _tokens(opened, tokenizer)
    _require_memory(opened)
    with stages("build the backbone"):
        backbone = build_backbone(
            opened.config, opened.tensors, group_size=opened.group_size, max_seq_len=LENGTH
        )
    kept, choice = _excluded_from_8da4w(opened, request, int4_linears(backbone))
    if choice and choice.scheme == Scheme.WEIGHT_ONLY:
        return SchemePlan({}, Scheme.WEIGHT_ONLY, [f"Weight-only on {choice.name}."]), choice
    with stages("measure each linear in 8da4w") as advance:
        freeze_weights(backbone)
        sensitivity = SchemeSensitivity(backbone, tokens)
        costs = sensitivity.of_each(advance)
    return plan_schemes(sensitivity, costs, kept, max_kl, tokens), choice


def _excluded_from_8da4w(
    opened: Checkpoint, request: ExportRequest, linears: Mapping[str, Int4Linear]
) -> tuple[dict[str, str], TargetChoice | None]:
    """(the linears that the target's kernel cannot compute in 8da4w, and why; the choice for the
    target, if there is one)"""
    kept = {}
    if request.target is None:
        return kept, None
    planned = replace(
        planned_program(opened, request.max_seq_len, request.prefill_chunk_size),
        activation_dtype=request.activation_dtype,
    )
    widest = max(linear.in_features for linear in linears.values())
    choice = choose_for_target(request.target, request.runtime, replace(planned, channels=widest))
    for name, linear in linears.items():
        met = met_by_8da4w(
            choice, choice.activation_dtype, replace(planned, channels=linear.in_features)
        )
        if met:
            kept[name] = met
    return kept, choice


def plan_schemes(
    sensitivity: SchemeSensitivity, costs: dict[str, float], kept: dict[str, str], max_kl: float,
    tokens: torch.Tensor,
) -> SchemePlan:  # fmt: skip
    """The fewest of the costliest linears weight-only, so that the rest costs `max_kl` or less on
    `tokens`, int64 [texts, T]."""
    fixed = _with_unpadded_channels(sensitivity.linears)
    free = [name for name in costs if name not in kept and name not in fixed]
    free.sort(key=costs.__getitem__, reverse=True)
    always = fixed - kept.keys()

    def cost(weight_only: int) -> float:
        return sensitivity.of_all([*free[weight_only:], *always])

    count = bisect_left(range(len(free)), True, key=lambda few: cost(few) <= max_kl)
    chosen = kept.keys() | free[:count]
    schemes = {True: Scheme.WEIGHT_ONLY, False: Scheme.DYNAMIC_INT8}
    planned = {
        name: PlannedLinear(schemes[name in chosen], costs[name], kept.get(name, ""))
        for name in costs
    }
    notes = [
        "The scheme of each int4 linear; quatrain export --scheme-plan reads this file, also "
        "after you edit it.",
        "kl is the cost of int8 activations in that linear alone: the KL divergence, in nats, "
        f"from the same checkpoint with all linears weight-only, on {len(tokens)} texts of "
        f"{tokens.shape[1]} tokens from Quatrain's calibration text.",
        f"{len(chosen)} of {len(planned)} linears are weight-only. As planned, int8 activations "
        f"cost {cost(count):.2g} nats; the limit is {max_kl:g}. If none were made weight-only to "
        f"stay below the limit, they would cost {cost(0):.2g}.",
    ]
    return SchemePlan(planned, notes=notes)


def _with_unpadded_channels(linears: Mapping[str, Int4Linear]) -> set[str]:
    """Linears whose output channels must be padded for the weight-only kernel, which a program
    written in 8da4w does not do."""
    return {name for name, linear in linears.items() if linear.out_features % CHANNELS_TOGETHER}


def _tokens(opened: Checkpoint, tokenizer: Path | None) -> torch.Tensor:
    """Texts to read, int64 [TEXTS, LENGTH]; `InputError` if there is no tokenizer for them."""
    if not opened.config.apply_embedding or not opened.config.apply_output:
        raise InputError(
            f"{opened.source}: --linear-scheme auto measures the model on a text, but this model "
            "has no embedding or no output layer; write a plan by hand for --scheme-plan"
        )
    folder = opened.source if opened.source.is_dir() else opened.source.parent
    words = Tokenizer.load(chosen_tokenizer(tokenizer, opened.source, folder))
    begin, ids = rows_of_text(opened.config, words, DEFAULT_TEXT.read_text(encoding="utf-8"))
    texts = spread_texts(begin, ids, min(LENGTH, opened.config.max_seq_len), TEXTS)
    if len(texts) < TEXTS:
        raise InputError(
            f"{opened.source}: its tokenizer makes too few tokens that the embedding has "
            f"({opened.config.vocab_size}); give the model's own tokenizer with --tokenizer"
        )
    return torch.tensor(texts)


def _require_memory(opened: Checkpoint) -> None:
    """Refuse what this machine's memory cannot hold in floating point."""
    needed = 4 * sum(
        torch.Size(tensor.shape).numel()
        for name, tensor in opened.tensors.stored.items()
        if name.endswith(".weight")
    )
    there = installed_memory_bytes()
    if needed > there:
        raise InputError(
            f"{opened.source}: --linear-scheme auto needs about {needed / 1e9:.0f} GB of memory, "
            f"and this machine has {there / 1e9:.0f}; write a plan by hand for --scheme-plan, or "
            "choose one scheme"
        )
