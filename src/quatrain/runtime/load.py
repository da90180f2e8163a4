"""Picks the runtime for a program, and finds the tokenizer beside it."""

from pathlib import Path
from typing import Any, Protocol

from quatrain.errors import InputError
from quatrain.program import Program, open_program
from quatrain.runtime.generate import Runner

DEVICES = ("auto", "gpu", "reference", "executorch")


class ProgramRunner(Runner, Protocol):
    """A `Runner` that knows its program's constant methods."""

    metadata: dict[str, Any]


def load_runner(
    path: Path, device: str = "auto", emulate: str | None = None
) -> tuple[ProgramRunner, str]:
    """A runner for the program at `path`, and the name of the runtime it runs on.

    "auto": for a Vulkan program a GPU (a software one decodes several times faster than the
    reference does), or the CPU reference where there is none or it lacks a kernel; ExecuTorch
    for any other program. `emulate` is a defect of `quatrain.runtime.faults` to compute with.
    Raises `InputError` where `device` is unknown or cannot run this program.
    """
    if device not in DEVICES:
        raise InputError(f"--device is {device!r}, expected one of {', '.join(DEVICES)}")
    program = open_program(path)
    if not _is_vulkan(program) and device == "auto":
        device = "executorch"
    if device == "executorch":
        if emulate:
            raise InputError("--emulate works with --device gpu and reference")
        from quatrain.runtime.executorch import ExecutorchRunner

        return ExecutorchRunner(program), "executorch"
    if device == "gpu":
        return _gpu_runner(program, emulate)
    if device == "auto":
        try:
            return _gpu_runner(program, emulate)
        except InputError:
            pass  # no adapter, or no kernel for an operator that the reference may have
    from quatrain.runtime.reference import ReferenceRunner

    return ReferenceRunner(program, emulate=emulate), "reference"


def _gpu_runner(program: Program, emulate: str | None) -> tuple[ProgramRunner, str]:
    try:
        from quatrain.runtime.wgpu import WgpuRunner
    except ImportError as error:
        raise InputError(f"--device gpu needs wgpu: pip install wgpu ({error})") from error
    runner = WgpuRunner(program, emulate=emulate)
    return runner, f"gpu, {runner.gpu.info.name}"


def _is_vulkan(program: Program) -> bool:
    return any(delegate.graph is not None for delegate in program.delegates)


def find_tokenizer(program: Path) -> Path:
    """The tokenizer beside `program`: `<stem>.tokenizer.json`, else `tokenizer.json`."""
    for name in (f"{program.stem}.tokenizer.json", "tokenizer.json"):
        if (program.parent / name).is_file():
            return program.parent / name
    raise InputError(
        f"{program}: no tokenizer beside it ({program.stem}.tokenizer.json or tokenizer.json); "
        "give one with --tokenizer"
    )
