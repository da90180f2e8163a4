"""Verifies that a program computes what its checkpoint defines.

Of a Vulkan program everything can be checked: packed constants, each operator's result, logits. Of
a delegate that ExecuTorch runs, only the logits are visible. They are also computed here without
rounding activations to int8, which would hide small errors.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from quatrain.arithmetic import Arithmetic
from quatrain.backbone.model import Backbone
from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.checkpoint.open import open_checkpoint
from quatrain.errors import InputError, require_at_least, require_several
from quatrain.int4 import Scheme
from quatrain.program import Program, VulkanGraph, open_program
from quatrain.runtime.defects import emulated_defect
from quatrain.runtime.devices import parse_device
from quatrain.runtime.emulatable import why_unchanged
from quatrain.runtime.load import (
    is_vulkan,
    load_runner,
    require_forward,
    require_tokens_to_logits,
)
from quatrain.runtime.runner import Runner
from quatrain.stages import Stages
from quatrain.targets import fatal_findings
from quatrain.targets.as_on import arithmetic_as_on
from quatrain.tokenizer import Tokenizer, chosen_tokenizer
from quatrain.verify.checks.constants import compare_constants
from quatrain.verify.checks.half_sums import half_sums_error, overflow_problems
from quatrain.verify.checks.layerwise import TOLERANCE, TracingRunner, compare_layerwise
from quatrain.verify.checks.logits_problems import (
    divergence_problems,
    health_problems,
    logits_problems,
)
from quatrain.verify.checks.metadata import compare_metadata
from quatrain.verify.checks.not_compared import methods_not_compared, not_compared
from quatrain.verify.checks.parity import EagerLogits, Parity, compare_logits, rounding_floor
from quatrain.verify.checks.prompts import PROMPTS, encoded_prompts
from quatrain.verify.checks.same_model import require_same_model
from quatrain.verify.checks.unrounded import compare_unrounded
from quatrain.verify.devices import open_devices
from quatrain.verify.eager import eager_for_program
from quatrain.verify.notes import notes_on, notes_on_later_texts
from quatrain.verify.program_info import ProgramInfo, is_quatrains, program_info
from quatrain.verify.report import DeviceCheck, VerifyReport

# Logits may differ by this much, or by so many times what rounding alone does to them.
_LOGITS_ERROR = {"float32": 1e-3, "float16": 5e-2, "bfloat16 scales": 1e-3}
# The relative change of the embedding that represents rounding in each type.
_NUDGE = {"float32": 1e-6, "float16": 5e-4, "bfloat16 scales": 2e-3}
_FLOORS = 4.0
_DRAWS = 8  # of that change, until one moves an int8 activation of 8da4w
_HALF_SUMS = 2.0  # times what the longest float16 sum may be off by, over all layers
_DIVERGENCE = 1e-3  # nats beyond as many floors, where logits are all that can be compared


def verify_program(
    program: Path | str,
    checkpoint: Path | str,
    devices: tuple[str, ...] = ("auto",),
    prompts: tuple[str, ...] = PROMPTS,
    new_tokens: int = 12,
    emulate: str | None = None,
    stages: Stages | None = None,
    as_on: str | None = None,
    tokenizer: Path | str | None = None,
) -> VerifyReport:
    """Compare a program with the eager backbone of its checkpoint, in the program's scheme.

    Its constants and metadata must equal the checkpoint's. On each device, every value that both
    sides compute and the device exposes must be within tolerance, and the logits must be as close
    as rounding allows. A defect of the newest release of ExecuTorch's Vulkan runtime that certainly
    applies on every GPU is a problem too.

    Args:
        program: A .pte file.
        checkpoint: The checkpoint that it was made from, as for `open_checkpoint`.
        devices: As in `load_runner`; "auto" means all that can run it here.
        prompts: Texts of two tokens or more to compare on.
        new_tokens: The number of greedy tokens after each prompt.
        emulate: The id of a defect to emulate on the devices.
        stages: Receives the progress of each stage.
        as_on: GPU[@RELEASE] whose 8da4w arithmetic is used; None means a GPU with integer dot
            products.
        tokenizer: A tokenizer.json; None means the program's, or else the checkpoint's.

    Raises:
        InputError: The request is wrong. What the program computes wrongly is in the report.
    """
    program, checkpoint, stages = Path(program), Path(checkpoint), stages or Stages()
    _check_request(devices, prompts, new_tokens, emulate)
    arithmetic = arithmetic_as_on(as_on)
    with stages("open the program and the checkpoint"):
        opened = _open(program, checkpoint, devices, emulate, arithmetic, tokenizer)
        config, context = opened.checkpoint.config, opened.info.context
        texts = encoded_prompts(prompts, opened.tokenizer, config, context, new_tokens)
    source, info = opened.checkpoint, opened.info
    graph = opened.graph
    with stages("build the eager backbone"):
        backbone, rounded = eager_for_program(source, info, graph, arithmetic)
    with stages("compare constants") as advance:
        packed, unknown, are_stored = compare_constants(
            opened.program, graph, source, backbone, advance
        )
        compared = prompts if tokenizer is None else None
        rewinds, words = backbone.rewinds, opened.tokenizer
        stated, unread = compare_metadata(opened.program, source, rewinds, words, compared)
        fatal = fatal_findings(opened.program)
    eager, floor = _run_eager(backbone, texts, new_tokens, info, stages)
    halves, checks = half_sums_error(graph, arithmetic) if graph else 0.0, []
    rounding = max(_LOGITS_ERROR[info.rounding], _FLOORS * floor.logits_error)
    allowed = rounding + _HALF_SUMS * halves
    unrounded = None
    if graph is None:
        with stages("compute without rounding activations") as advance:
            ours = is_quatrains(opened.program)
            unrounded = compare_unrounded(
                opened.program, backbone, eager, ours, are_stored, advance
            )
    # What cannot be computed is no program to run.
    can_run = unrounded is None or unrounded.is_computed
    for device, runner in opened.runners.items() if can_run else ():
        runner = runner or load_runner(opened.program, device, emulate, arithmetic=arithmetic)
        check = _check_device(device, runner, backbone, eager, floor, info, allowed, halves, stages)
        checks.append(check)
    tokens, shown = max(map(len, texts)) + new_tokens - 1, any(c.layerwise for c in checks)
    picked = {} if shown else eager.picked
    shown |= unrounded is not None
    left = not_compared(unknown, backbone, tokens, shown, picked) + unread
    report = VerifyReport(
        program, checkpoint, info.scheme_name, packed + stated, floor, allowed, checks,
        stages.seconds, fatal=fatal, tokens=tokens,
        not_compared=left + methods_not_compared(opened.program),
        unrounded=unrounded,
    )  # fmt: skip
    if emulate and report.passed:
        reason = why_unchanged(opened.program, emulate, max(map(len, texts)), arithmetic)
        return replace(report, notes=[reason or f"{emulate} changed nothing here"])
    notes = notes_on(report.passed, rounded, info, halves)
    if can_run:
        notes += notes_on_later_texts(opened.runners, texts[0])
    return replace(report, notes=notes)


@dataclass(frozen=True)
class _Opened:
    """What is compared; `graph` is None for a program whose delegates are not read, a runner is
    None if it is loaded when it is its turn."""

    program: Program
    checkpoint: Checkpoint
    graph: VulkanGraph | None
    info: ProgramInfo
    runners: dict[str, Runner | None]
    tokenizer: Tokenizer


def _open(
    program: Path,
    checkpoint: Path,
    devices: tuple[str, ...],
    emulate: str | None,
    arithmetic: Arithmetic,
    tokenizer: Path | str | None,
) -> _Opened:
    opened, source = open_program(program), open_checkpoint(checkpoint)
    require_tokens_to_logits(program, opened.metadata, "verify")
    graph = opened.vulkan if is_vulkan(opened) else None
    if graph:
        require_forward(opened)
    require_same_model(opened, graph, source)
    runners = open_devices(devices, opened, emulate, arithmetic)
    folder = source.source if source.source.is_dir() else source.source.parent
    return _Opened(
        program=opened,
        checkpoint=source,
        graph=graph,
        info=program_info(opened),
        runners=runners,
        tokenizer=Tokenizer.load(chosen_tokenizer(tokenizer, program, folder)),
    )


def _run_eager(
    backbone: Backbone, texts: list[list[int]], new_tokens: int, info: ProgramInfo, stages: Stages
) -> tuple[EagerLogits, Parity]:
    """The backbone's logits, and how far rounding alone moves them.

    In a small 8da4w model a draw may leave every int8 activation where it is, which tells nothing
    of what one costs that a device rounds otherwise: then another is drawn.
    """
    with stages("run the eager backbone") as advance:
        eager = EagerLogits(backbone, texts, new_tokens, lambda part: advance(part / 2))
        nudge, floors = _NUDGE[info.rounding], list[Parity]()
        for seed in range(1 if info.scheme is Scheme.WEIGHT_ONLY else _DRAWS):
            left = 0.5 ** (seed + 1)  # each draw is half of it: how many it takes, nothing says
            drawn = rounding_floor(
                backbone, eager, nudge, seed, lambda part, left=left: advance(1 - left / (1 + part))
            )
            floors.append(drawn)
            if _FLOORS * drawn.logits_error > _LOGITS_ERROR[info.rounding]:
                break
    return eager, max(floors, key=lambda floor: floor.logits_error)


def _check_request(
    devices: tuple[str, ...], prompts: tuple[str, ...], new_tokens: int, emulate: str | None
) -> None:
    require_several("devices", devices)
    require_several("prompts", prompts)
    require_at_least(1, "new_tokens", new_tokens)
    if not prompts:
        raise InputError("prompts is empty, expected one text or more")
    emulated_defect(emulate)
    for device in devices:
        parse_device(device)


def _check_device(
    device: str, runner: Runner, backbone: Backbone, eager: EagerLogits, floor: Parity,
    info: ProgramInfo, allowed_error: float, halves: float, stages: Stages,
) -> DeviceCheck:  # fmt: skip
    with stages(f"run on {device}") as advance:
        logits = eager.followed_by(runner, advance)
    parity = compare_logits(eager.logits, logits)
    problems = logits_problems(parity, allowed_error) + health_problems(eager.logits, logits)
    if device == "executorch":
        problems += divergence_problems(parity, _FLOORS * floor.kl + _DIVERGENCE)
        return DeviceCheck(device, parity, None, problems)
    with stages(f"compare operators on {device}"):
        tracing, tolerance = cast(TracingRunner, runner), TOLERANCE[info.rounding] + halves
        layerwise = compare_layerwise(tracing, backbone, eager.texts[0], tolerance)
    if info.rounding == "float16":
        problems += overflow_problems(layerwise, halves)
    if layerwise.first is not None:
        problems.insert(0, str(layerwise.first))
    return DeviceCheck(device, parity, layerwise, problems)
