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


def load_runner(path: Path, device: str = "auto") -> tuple[ProgramRunner, str]:
    """A runner for the program at `path`, and the name of the runtime it runs on.

    "auto": the CPU reference for a Vulkan program, ExecuTorch for any other. Raises
    `InputError` where `device` is unknown or cannot run this program.
    """
    if device not in DEVICES:
        raise InputError(f"--device is {device!r}, expected one of {', '.join(DEVICES)}")
    program = open_program(path)
    if device == "auto":
        device = "reference" if _is_vulkan(program) else "executorch"
    if device == "executorch":
        from quatrain.runtime.executorch import ExecutorchRunner

        return ExecutorchRunner(program), "executorch"
    if device == "gpu":
        from quatrain.runtime.wgpu import WgpuRunner

        return WgpuRunner(program), "gpu"
    from quatrain.runtime.reference import ReferenceRunner

    return ReferenceRunner(program), "reference"


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
