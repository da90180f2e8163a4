"""Picks the runtime for a program."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from quatrain.arithmetic import VULKAN_ARITHMETIC, Arithmetic
from quatrain.errors import InputError
from quatrain.program import Program, open_program
from quatrain.runtime.defects import emulated_defect
from quatrain.runtime.devices import parse_device
from quatrain.runtime.generate import NamedRunner
from quatrain.runtime.one_delegate import require_only_delegate
from quatrain.runtime.speed import (
    KeptSpeeds,
    decode_seconds,
    one_token,
    prefers_reference,
    reference_fits,
    tokens_per_second,
)
from quatrain.runtime.unavailable import RuntimeUnavailable
from quatrain.stages import Stages

if TYPE_CHECKING:
    from quatrain.runtime.wgpu import WgpuRunner


class ProgramRunner(NamedRunner, Protocol):
    """A program on some runtime: a `Runner` that knows its program's constant methods.

    Attributes:
        device: What it runs on, in words for people.
        metadata: What each constant method of the program returns, such as `get_max_context_len`
            (tokens), `get_vocab_size` and `get_eos_ids`.
    """

    metadata: dict[str, Any]


def load_runner(
    program: Program | Path | str,
    device: str = "auto",
    emulate: str | None = None,
    stages: Stages | None = None,
    arithmetic: Arithmetic = VULKAN_ARITHMETIC,
) -> ProgramRunner:
    """Load a program into a runtime of this machine.

    A program that was edited in memory runs as edited, except on ExecuTorch, which reads its file.

    Args:
        program: An opened program, or a path to one.
        device: "reference", "gpu", "gpu:NAME" (the GPU of that name or number), "executorch", or
            "auto": for a Vulkan program a real GPU; without one the CPU reference, or the software
            GPU where that measured clearly faster; ExecuTorch for any other program.
        emulate: The id of a defect to compute with, of `quatrain.runtime.defects`.
        stages: Hears of the measurement, which is made once and takes a while.
        arithmetic: How a Vulkan program's 8da4w linears are computed.

    Raises:
        InputError: Where `device` is unknown or cannot run this program, or the program is damaged.
    """
    device, adapter = parse_device(device)
    emulated_defect(emulate)
    if not isinstance(program, Program):
        program = open_program(program)
    if not is_vulkan(program) and device == "auto":
        device = "executorch"
    if device == "executorch":
        if emulate:
            raise InputError("--emulate works with --device gpu and reference")
        if arithmetic.asked_for:
            raise InputError(
                f"{program.path}: --as-on is for Vulkan programs on --device gpu and reference; "
                "ExecuTorch's runtime computes as it does, so leave it out"
            )
        from quatrain.runtime.executorch import ExecutorchRunner

        return ExecutorchRunner(program)
    if device == "gpu":
        return _gpu_runner(program, emulate, arithmetic, adapter)
    if device == "auto":
        return _automatic(program, emulate, arithmetic, stages or Stages())
    return _reference_runner(program, emulate, arithmetic)


def _automatic(
    program: Program, emulate: str | None, arithmetic: Arithmetic, stages: Stages
) -> ProgramRunner:
    """The real GPU, else the reference or the software one, as measured."""
    require_only_delegate(program, "reference runtime")
    kept = _kept_speeds(program)
    seconds = kept.read() if kept else None
    if kept and seconds and prefers_reference(seconds):
        return _measured_reference(_reference_runner(program, emulate, arithmetic), kept, seconds)
    try:
        gpu = _gpu_runner(program, emulate, arithmetic)
    except RuntimeUnavailable as error:
        reference = _reference_runner(program, emulate, arithmetic)
        reference.device += f" ({error.reason})"
        return reference
    if kept is None:
        return gpu
    reference = None
    if seconds is None:
        with stages("measure which runtime is faster"):
            try:
                reference = _reference_runner(program, emulate, arithmetic)
            except InputError:
                return gpu
            one = one_token(program)
            seconds = {"gpu": decode_seconds(gpu, one), "reference": decode_seconds(reference, one)}
        kept.write(seconds)
    if reference and prefers_reference(seconds):
        return _measured_reference(reference, kept, seconds)
    rates = tokens_per_second(seconds)
    gpu.device += f" (measured {rates['gpu']} tokens/s, the reference {rates['reference']})"
    return gpu


def _measured_reference(
    reference: ProgramRunner, kept: KeptSpeeds, seconds: dict[str, float]
) -> ProgramRunner:
    rates = tokens_per_second(seconds)
    reference.device += f" (measured {rates['reference']} tokens/s, {kept.adapter} {rates['gpu']})"
    return reference


def _kept_speeds(program: Program) -> KeptSpeeds | None:
    """Where the speeds of `program` on this machine are kept; None where there is nothing to
    measure: without an adapter, with a real GPU, or where the reference does not fit."""
    try:
        from quatrain.runtime.wgpu import adapters
    except ImportError:
        return None
    found = adapters.list_adapters()
    if not found or not found[0].is_cpu or not reference_fits(program.vulkan):
        return None
    return KeptSpeeds(program.vulkan, found[0].name, found[0].driver)


def _reference_runner(
    program: Program, emulate: str | None, arithmetic: Arithmetic
) -> ProgramRunner:
    from quatrain.runtime.reference import ReferenceRunner

    return ReferenceRunner(program, emulate, arithmetic)


def _gpu_runner(
    program: Program, emulate: str | None, arithmetic: Arithmetic, adapter: str | None = None
) -> "WgpuRunner":
    try:
        from quatrain.runtime.wgpu import WgpuRunner
    except ImportError as error:
        reason = "--device gpu needs wgpu"
        raise RuntimeUnavailable(f"{reason}: pip install wgpu ({error})", reason) from error
    return WgpuRunner(program, adapter, emulate, arithmetic)


def is_vulkan(program: Program) -> bool:
    """Whether `program` holds a Vulkan delegate."""
    return any(delegate.graph is not None for delegate in program.delegates)


def require_tokens_to_logits(program: Path, metadata: dict[str, Any], verb: str) -> None:
    """Refuse, for `verb`, a program that takes embeddings or gives hidden states."""
    for option in ("embedding_input", "hidden_output"):
        if metadata.get(f"quatrain_{option}"):
            raise InputError(
                f"{program}: was exported with --{option.replace('_', '-')}; {verb} takes "
                "programs from tokens to logits (others run from Python, quatrain.runtime)"
            )
