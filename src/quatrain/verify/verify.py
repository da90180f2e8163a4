"""Proves that a program computes what its checkpoint means.

Of a Vulkan program everything can be seen: packed constants, each operator's result, logits. A
delegate that ExecuTorch runs shows its logits alone.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from quatrain.arithmetic import ARITHMETIC_OF
from quatrain.backbone.build import build_backbone
from quatrain.backbone.model import Backbone
from quatrain.checkpoint import open_checkpoint
from quatrain.errors import InputError
from quatrain.export.xnnpack.positive_scales import RoundedAgain, make_scales_positive
from quatrain.int4 import Scheme
from quatrain.linear.int4 import compute_as, freeze_weights
from quatrain.program import Program, open_program
from quatrain.runtime.defects import emulated_defect
from quatrain.runtime.devices import parse_device
from quatrain.runtime.generate import Runner, check_prompt
from quatrain.runtime.load import (
    is_vulkan,
    load_runner,
    require_tokens_to_logits,
)
from quatrain.runtime.wgpu.adapters import list_adapters
from quatrain.stages import Stages
from quatrain.tokenizer import Tokenizer, find_tokenizer
from quatrain.verify.layerwise import (
    TOLERANCE,
    LayerwiseComparison,
    TracingRunner,
    compare_layerwise,
)
from quatrain.verify.logits_checks import divergence_problems, health_problems, logits_problems
from quatrain.verify.packed_constants import PackedCheck, check_packed
from quatrain.verify.parity import (
    Parity,
    compare_logits,
    continue_greedily,
    greedy_logits,
    rounding_floor,
)
from quatrain.verify.program_info import match_schemes, program_info

PROMPTS = (
    "The capital of France is Paris, and the capital of Italy is",
    "To install a package on Debian, open a terminal and type",
)
# Logits may differ by this much, or by so many times what rounding alone does to them.
_LOGITS_ERROR = {"float32": 1e-3, "float16": 5e-2, "bfloat16 scales": 1e-3}
# Relative change of the embedding that stands for rounding in each type.
_NUDGE = {"float32": 1e-6, "float16": 5e-4, "bfloat16 scales": 2e-3}
_FLOORS = 4.0
_DIVERGENCE = 1e-3  # nats beyond as many floors, where logits are all that can be compared


@dataclass(frozen=True)
class DeviceCheck:
    """What one device gave. `walk` is None where it shows no values between (ExecuTorch).
    `problems` are whole sentences; empty where the program is right."""

    device: str
    parity: Parity
    layerwise: LayerwiseComparison | None
    problems: list[str]


@dataclass(frozen=True)
class VerifyReport:
    """Whether a program computes what its checkpoint means.

    Attributes:
        program: The program's path.
        checkpoint: The checkpoint's path.
        scheme: "8da4w", "weight-only", or "mixed" where its linears differ.
        packed: A check for each int4 linear of a Vulkan program.
        floor: How far rounding alone moves the logits.
        allowed_error: The relative error that the logits may have.
        devices: What each device gave.
        seconds: Wall time by stage.
        note: What a reader of the verdict should know.
    """

    program: Path
    checkpoint: Path
    scheme: str
    packed: list[PackedCheck]
    floor: Parity
    allowed_error: float
    devices: list[DeviceCheck]
    seconds: dict[str, float]
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not any(p.problem for p in self.packed) and not any(d.problems for d in self.devices)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON."""
        return asdict(self) | {"passed": self.passed}


def verify_program(
    program: Path | str,
    checkpoint: Path | str,
    devices: tuple[str, ...] = ("auto",),
    prompts: tuple[str, ...] = PROMPTS,
    new_tokens: int = 12,
    emulate: str | None = None,
    stages: Stages | None = None,
) -> VerifyReport:
    """Compare a program with the eager backbone of its checkpoint, in the program's scheme.

    A Vulkan program's packed constants must be the checkpoint's. On each device every value that
    both sides know must be within tolerance, where the device shows it, and the logits must be as
    close as rounding allows. The tokenizer is the program's, or else the checkpoint's.

    Args:
        program: A .pte file.
        checkpoint: What it was made from, as `open_checkpoint` takes it.
        devices: As in `load_runner`; "auto" is all that can run it here.
        prompts: Texts to compare on, of two tokens or more.
        new_tokens: How many greedy tokens follow each prompt.
        emulate: The id of a defect that the devices are to have.
        stages: Hears of each stage.

    Raises:
        InputError: For a wrong request. What the program computes wrongly is in the report.
    """
    program, checkpoint, stages = Path(program), Path(checkpoint), stages or Stages()
    emulated_defect(emulate)
    with stages("open the program and the checkpoint"):
        opened, source = open_program(program), open_checkpoint(checkpoint)
        require_tokens_to_logits(program, opened.metadata, "verify")
        ready = _open_devices(devices, opened, emulate)
        info = program_info(opened)
        folder = source.source if source.source.is_dir() else source.source.parent
        tokenizer = Tokenizer.load(find_tokenizer(program, folder))
        texts = _encode(prompts, tokenizer, info.context, new_tokens)
    with stages("compare packed weights"):
        vulkan = opened.vulkan if is_vulkan(opened) else None
        packed = check_packed(vulkan, source.tensors, source.group_size) if vulkan else []
    with stages("build the eager backbone"):
        backbone = build_backbone(
            source.config,
            source.tensors,
            info.scheme or Scheme.DYNAMIC_INT8,
            group_size=source.group_size, max_seq_len=info.context,
        )  # fmt: skip
        if vulkan and info.scheme is None:
            match_schemes(backbone, vulkan)
        rounded = RoundedAgain() if vulkan else make_scales_positive(backbone)
        compute_as(backbone, ARITHMETIC_OF["vulkan" if vulkan else "xnnpack"])
        freeze_weights(backbone)
    with stages("run the eager backbone"):
        eager = _Eager(backbone, texts, new_tokens)
        floor = rounding_floor(backbone, texts, eager.follows, eager.logits, _NUDGE[info.rounding])
    allowed = max(_LOGITS_ERROR[info.rounding], _FLOORS * floor.logits_error)
    checks = []
    for device, opened_runner in ready.items():
        runner = opened_runner or load_runner(opened, device, emulate)
        with stages(f"run on {device}"):
            logits = eager.followed_by(runner)
        parity = compare_logits(eager.logits, logits)
        walked = None
        if device != "executorch":
            with stages(f"walk on {device}"):
                tracing = cast(TracingRunner, runner)
                walked = compare_layerwise(tracing, backbone, texts[0], TOLERANCE[info.rounding])
        problems = logits_problems(parity, allowed) + health_problems(eager.logits, logits)
        if walked is None:
            problems += divergence_problems(parity, _FLOORS * floor.kl + _DIVERGENCE)
        elif walked.first is not None:
            problems.insert(0, str(walked.first))
        checks.append(DeviceCheck(device, parity, walked, problems))
    report = VerifyReport(
        program, checkpoint, info.scheme_name, packed, floor, allowed, checks, stages.seconds
    )
    if emulate and report.passed:
        return replace(report, note=_unseen(emulate))
    if rounded.rounded:
        return replace(report, note=f"{rounded}. The backbone beside it was rounded alike")
    return report


def _unseen(defect: str) -> str:
    """Why a program passes although the device was given a defect."""
    return (
        f"{defect} changed nothing here. It concerns 8da4w linears alone, and dq8ca-m-gt-k those "
        "only that meet a --prompt of more tokens than they have inputs"
    )


class _Eager:
    """What the eager backbone makes of each prompt: the tokens that follow it greedily, all but
    the last, and the logits [V] of each step."""

    def __init__(self, backbone: Backbone, texts: list[list[int]], new_tokens: int):
        self.texts = texts
        continued = [continue_greedily(backbone, text, new_tokens) for text in texts]
        self.follows = [tokens[:-1] for tokens, _ in continued]
        self.logits = [rows for _, rows in continued]

    def followed_by(self, runner: Runner) -> list[list[torch.Tensor]]:
        """The logits of `runner` for the same tokens."""
        pairs = zip(self.texts, self.follows, strict=True)
        return [greedy_logits(runner, prompt, follow) for prompt, follow in pairs]


def _open_devices(
    asked: tuple[str, ...], program: Program, emulate: str | None
) -> dict[str, Runner | None]:
    """The runner on each device of `asked`, with all that can run `program` here for "auto".

    So that one which cannot is refused before all else. None for the reference, which holds the
    weights dequantized: it is loaded when it is its turn.
    """
    found: dict[str, Runner | None] = {}
    for device in asked:
        if parse_device(device)[0] == "auto":
            found |= _open_all(program, emulate)
        elif device == "reference":
            found[device] = None
        elif device not in found:
            found[device] = load_runner(program, device, emulate)
    if not found:
        raise InputError("no --device is given; leave it out for all that run the program")
    return found


def _open_all(program: Program, emulate: str | None) -> dict[str, Runner | None]:
    if not is_vulkan(program):
        return {"executorch": load_runner(program, "executorch", emulate)}
    if not list_adapters():
        return {"reference": None}
    try:
        return {"reference": None, "gpu": load_runner(program, "gpu", emulate)}
    except InputError:  # an operator without a kernel, or a limit of the adapter
        return {"reference": None}


def _encode(
    prompts: tuple[str, ...], tokenizer: Tokenizer, context: int, new_tokens: int
) -> list[list[int]]:
    room = context - new_tokens
    encoded = [tokenizer.encode(prompt) for prompt in prompts]
    if room < 2:
        raise InputError(
            f"--new-tokens leaves no room for a prompt in the program's context of {context} "
            "tokens; ask for fewer"
        )
    for tokens in encoded:
        check_prompt(tokens, room)
        if len(tokens) < 2:
            raise InputError("a prompt of one token has no prefill to verify; give a longer one")
    return encoded
