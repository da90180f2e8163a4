"""Chooses the runtime for a program."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from quatrain.arithmetic import VULKAN_ARITHMETIC, Arithmetic
from quatrain.errors import InputError
from quatrain.int4 import Scheme
from quatrain.program import Program, open_program
from quatrain.program.inspect.linears import find_linears
from quatrain.runtime.automatic import Runtime, first_choice
from quatrain.runtime.defects import emulated_defect
from quatrain.runtime.devices import parse_device
from quatrain.runtime.one_delegate import require_only_delegate
from quatrain.runtime.runner import NamedRunner
from quatrain.runtime.unavailable import RuntimeUnavailable

if TYPE_CHECKING:
    from quatrain.runtime.wgpu.runner import WgpuRunner


class ProgramRunner(NamedRunner, Protocol):
    """A program on a runtime: a `Runner` that also has the values of the program's constant
    methods.

    Attributes:
        device: What it runs on, as text for people.
        metadata: The value of each constant method of the program, such as `get_max_context_len`
            (tokens), `get_vocab_size` and `get_eos_ids`.
        rewinds: Whether a call may go back to an earlier position in the text (`CallOrder`).
    """

    metadata: dict[str, Any]
    rewinds: bool


def load_runner(
    program: Program | Path | str,
    device: str = "auto",
    emulate: str | None = None,
    arithmetic: Arithmetic = VULKAN_ARITHMETIC,
) -> ProgramRunner:
    """Load a program into a runtime of this machine.

    A program that was edited in memory runs with its edits, except on ExecuTorch, which reads its
    file.

    Args:
        program: An opened program, or its path.
        device: "reference", "gpu", "gpu:NAME" (a GPU by name or number), "executorch", or "auto".
            For a Vulkan program, "auto" takes a real GPU; without one the CPU reference if the
            weights fit into memory, else the software GPU. For any other program it takes
            ExecuTorch.
        emulate: The id of a defect of `quatrain.runtime.defects` to emulate.
        arithmetic: How a Vulkan program's 8da4w linears are computed.

    Raises:
        InputError: `device` is unknown or cannot run this program, or the program is damaged.
    """
    device, adapter = parse_device(device)
    emulated_defect(emulate)
    if not isinstance(program, Program):
        program = open_program(program)
    if not is_vulkan(program) and device == "auto":
        device = "executorch"
    if device == "executorch":
        if emulate:
            raise InputError(
                f"{program.path}: --emulate is for Vulkan programs on --device gpu and reference; "
                "ExecuTorch's runtime computes as it does, so leave it out"
            )
        if arithmetic.asked_for:
            raise InputError(
                f"{program.path}: --as-on is for Vulkan programs on --device gpu and reference; "
                "ExecuTorch's runtime computes as it does, so leave it out"
            )
        from quatrain.runtime.executorch import ExecutorchRunner

        return ExecutorchRunner(program)
    if not is_vulkan(program):
        raise InputError(
            f"{program.path}: has no Vulkan delegate, which --device {device} computes. It runs "
            "here with --device executorch; for a GPU export it with --backend vulkan."
        )
    require_only_delegate(program, "reference runtime" if device == "reference" else "GPU runtime")
    require_forward(program)
    if device == "gpu":
        return _gpu_runner(program, emulate, arithmetic, adapter)
    if device == "auto":
        return _automatic(program, emulate, arithmetic)
    return _reference_runner(program, emulate, arithmetic)


def require_forward(program: Program) -> None:
    """Refuse, with an `InputError`, a program whose delegate is not the one result of `forward`,
    which apps call."""
    calls = {m.name: m for m in program.methods.values() if m.instructions}
    if list(calls) != ["forward"]:
        raise InputError(
            f"{program.path}: its methods are {', '.join(calls) or 'none'}, expected forward "
            "alone, which apps call; export it so"
        )
    results = len(calls["forward"].outputs)
    if results != 1:
        raise InputError(
            f"{program.path}: its method forward gives {results} results, expected one; export "
            "it with that alone"
        )


def _automatic(program: Program, emulate: str | None, arithmetic: Arithmetic) -> ProgramRunner:
    """The runtime of the rule, or the other one where that lacks an operator."""
    load: dict[Runtime, Callable[..., ProgramRunner]] = {
        "gpu": _gpu_runner, "reference": _reference_runner
    }  # fmt: skip
    first, reason = first_choice(program.vulkan)
    try:
        runner = load[first](program, emulate, arithmetic)
    except RuntimeUnavailable as error:
        other: Runtime = "reference" if first == "gpu" else "gpu"
        try:
            runner = load[other](program, emulate, arithmetic)
        except RuntimeUnavailable:
            raise error from None
        reason = error.reason
    if reason:
        runner.device += f" ({reason})"
    return runner


def _reference_runner(
    program: Program, emulate: str | None, arithmetic: Arithmetic
) -> ProgramRunner:
    from quatrain.runtime.reference import ReferenceRunner

    return ReferenceRunner(program, emulate, arithmetic)


def _gpu_runner(
    program: Program, emulate: str | None, arithmetic: Arithmetic, adapter: str | None = None
) -> "WgpuRunner":
    from quatrain.runtime.wgpu.runner import WgpuRunner

    return WgpuRunner(program, adapter, emulate, arithmetic)


def is_vulkan(program: Program) -> bool:
    """Whether `program` holds a Vulkan delegate."""
    return bool(program.graphs)


def has_8da4w(program: Program) -> bool:
    """Whether a linear of the Vulkan `program` computes in 8da4w."""
    return any(linear.scheme == Scheme.DYNAMIC_INT8 for linear in find_linears(program.vulkan))


def require_tokens_to_logits(program: Path, metadata: dict[str, Any], command: str) -> None:
    """Raise `InputError`, which names the `command`, if a program takes embeddings or returns
    hidden states."""
    for option in ("embedding_input", "hidden_output"):
        if metadata.get(f"quatrain_{option}"):
            raise InputError(
                f"{program}: was exported with --{option.replace('_', '-')}; {command} takes "
                "programs from tokens to logits (others run from Python, quatrain.runtime)"
            )
