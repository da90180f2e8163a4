"""Proves that a Vulkan program computes what its checkpoint means."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from quatrain.backbone.build import build_backbone
from quatrain.checkpoint import open_checkpoint
from quatrain.errors import InputError
from quatrain.linear.int4 import freeze_weights
from quatrain.program import Program, open_program
from quatrain.program.linears import find_linears
from quatrain.runtime.faults import check_fault
from quatrain.runtime.generate import check_prompt
from quatrain.runtime.load import find_tokenizer
from quatrain.stages import Stages
from quatrain.tokenizer import Tokenizer
from quatrain.verify.packed import PackedCheck, check_packed
from quatrain.verify.parity import (
    Parity,
    compare_logits,
    continue_greedily,
    greedy_logits,
    rounding_floor,
)
from quatrain.verify.walk import TOLERANCE, Walk, walk

DEVICES = ("reference", "gpu")
PROMPTS = (
    "The capital of France is Paris, and the capital of Italy is",
    "To install a package on Debian, open a terminal and type",
)
# Logits may differ by this much, or by so many times what rounding alone does to them.
_LOGITS_ERROR = {"float32": 1e-3, "float16": 5e-2}
# Relative change of the embedding that stands for rounding in each type.
_NUDGE = {"float32": 1e-6, "float16": 5e-4}
_FLOORS = 4.0


@dataclass(frozen=True)
class DeviceCheck:
    """What one device gave. `problems` are whole sentences; empty where the program is right."""

    device: str
    parity: Parity
    walk: Walk
    problems: list[str]


@dataclass(frozen=True)
class VerifyReport:
    """`packed`: a check per int4 linear. `floor`: how far rounding alone moves the logits.
    `allowed_error`: of the logits. `passed`: nothing was found."""

    program: Path
    checkpoint: Path
    scheme: str
    packed: list[PackedCheck]
    floor: Parity
    allowed_error: float
    devices: list[DeviceCheck]
    seconds: dict[str, float]

    @property
    def passed(self) -> bool:
        return not any(p.problem for p in self.packed) and not any(d.problems for d in self.devices)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain data, ready for JSON."""
        return asdict(self) | {"passed": self.passed}


def verify_program(
    program: Path,
    checkpoint: Path,
    devices: tuple[str, ...] = ("reference",),
    prompts: tuple[str, ...] = PROMPTS,
    new_tokens: int = 12,
    emulate: str | None = None,
    stages: Stages | None = None,
) -> VerifyReport:
    """Compare the program with the eager backbone of its checkpoint, in the program's scheme.

    Packed constants must be the checkpoint's. On each device ("reference", "gpu"): every point
    of a walk must be within tolerance, and the logits of `prompts`, each continued by
    `new_tokens` greedy ones, must be as close as rounding allows. `emulate` names a defect that
    the device is to have. Raises `InputError` for a wrong request.
    """
    stages = stages or Stages()
    check_fault(emulate)
    unknown = [device for device in devices if device not in DEVICES]
    if unknown or not devices:
        raise InputError(f"--device {unknown or 'none'}: expected {' or '.join(DEVICES)}")
    with stages("open the program and the checkpoint"):
        opened, source = open_program(program), open_checkpoint(checkpoint)
        scheme, dtype, context = _describe(opened)
    with stages("compare packed weights"):
        packed = check_packed(opened.vulkan, source.tensors, source.group_size)
    with stages("build the eager backbone"):
        backbone = build_backbone(
            source.config, source.tensors, "weight-only" if scheme == "weight-only" else "8da4w",
            group_size=source.group_size, max_seq_len=context,
        )  # fmt: skip
        freeze_weights(backbone)
    texts = _encode(prompts, program, context - new_tokens)
    with stages("run the eager backbone"):
        continued = [continue_greedily(backbone, text, new_tokens) for text in texts]
        follows, expected = (
            [tokens[:-1] for tokens, _ in continued],
            [rows for _, rows in continued],
        )
        floor = rounding_floor(backbone, texts, follows, expected, _NUDGE[dtype])
    allowed = max(_LOGITS_ERROR[dtype], _FLOORS * floor.logits_error)
    checks = []
    for device in devices:
        with stages(f"run on {device}"):
            runner = _runner(opened, device, emulate)
            found = [greedy_logits(runner, p, f) for p, f in zip(texts, follows, strict=True)]
        with stages(f"walk on {device}"):
            walked = walk(runner, backbone, texts[0], TOLERANCE[dtype])
        parity = compare_logits(expected, found)
        checks.append(DeviceCheck(device, parity, walked, _problems(parity, walked, allowed)))
    return VerifyReport(program, checkpoint, scheme, packed, floor, allowed, checks, stages.seconds)


def _describe(program: Program) -> tuple[str, str, int]:
    """(scheme, activation type, context) of a program that goes from tokens to logits."""
    graph = program.vulkan
    for option in ("embedding_input", "hidden_output"):
        if program.metadata.get(f"quatrain_{option}"):
            raise InputError(
                f"{program.path}: was exported with --{option.replace('_', '-')}; verify takes "
                "programs from tokens to logits"
            )
    schemes = {linear.scheme for linear in find_linears(graph) if linear.group_size is not None}
    if len(schemes) != 1:
        raise InputError(
            f"{program.path}: its int4 linears are {' and '.join(sorted(schemes)) or 'none'}; "
            "verify compares programs of one scheme"
        )
    dtype = graph.tensor(graph.outputs[0]).dtype
    context = int(program.metadata.get("get_max_context_len", 0)) or _cache_length(program)
    return schemes.pop(), "float16" if dtype == "float16" else "float32", context


def _cache_length(program: Program) -> int:
    graph = program.vulkan
    for operator in graph.operators:
        if operator.kind == "sdpa_with_kv_cache":
            return graph.tensor(operator.named_args["k_cache"]).shape[1]
    raise InputError(f"{program.path}: has no attention with a KV cache")


def _encode(prompts: tuple[str, ...], program: Path, room: int) -> list[list[int]]:
    tokenizer = Tokenizer.load(find_tokenizer(program))
    encoded = [tokenizer.encode(prompt) for prompt in prompts]
    for tokens in encoded:
        check_prompt(tokens, room)
        if len(tokens) < 2:
            raise InputError("a prompt of one token has no prefill to verify; give a longer one")
    return encoded


def _runner(program: Program, device: str, emulate: str | None) -> Any:
    if device == "gpu":
        from quatrain.runtime.wgpu import WgpuRunner

        return WgpuRunner(program, emulate=emulate)
    from quatrain.runtime.reference import ReferenceRunner

    return ReferenceRunner(program, emulate=emulate)


def _problems(parity: Parity, walked: Walk, allowed: float) -> list[str]:
    problems = []
    if walked.first is not None:
        problems.append(str(walked.first))
    if not parity.logits_error <= allowed:
        problems.append(
            f"the logits differ by {parity.logits_error:.2g}, relatively; rounding explains up "
            f"to {allowed:.2g}"
        )
    return problems
