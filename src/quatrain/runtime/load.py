"""Picks the runtime for a program, and finds the tokenizer beside it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from quatrain.errors import InputError
from quatrain.program import Program, open_program
from quatrain.runtime.generate import Runner
from quatrain.runtime.speed import KeptSpeeds, decode_seconds, one_token, reference_fits
from quatrain.stages import Stages
from quatrain.tokenizer.tokenizer import TOKENIZER, beside

if TYPE_CHECKING:
    from quatrain.runtime.wgpu import WgpuRunner

DEVICES = ("auto", "gpu", "reference", "executorch")


class ProgramRunner(Runner, Protocol):
    """A `Runner` that knows its program's constant methods."""

    metadata: dict[str, Any]


def load_runner(
    program: Program | Path | str,
    device: str = "auto",
    emulate: str | None = None,
    stages: Stages | None = None,
) -> tuple[ProgramRunner, str]:
    """A runner for `program`, or the one at that path, and the name of the runtime it runs on.

    "auto": for a Vulkan program a real GPU; without one the software GPU or the CPU reference,
    whichever measured faster, and the name says so; ExecuTorch for any other program. "gpu:NAME"
    is the GPU of that name or number. `emulate` is a defect of `quatrain.runtime.defects` to
    compute with. `stages` hears of the measurement, which is made once and takes a while. A
    program that was edited in memory runs as edited, except on ExecuTorch, which reads its file.
    Raises `InputError` where `device` is unknown or cannot run this program.
    """
    device, adapter = check_device(device)
    if not isinstance(program, Program):
        program = open_program(program)
    if not is_vulkan(program) and device == "auto":
        device = "executorch"
    if device == "executorch":
        if emulate:
            raise InputError("--emulate works with --device gpu and reference")
        from quatrain.runtime.executorch import ExecutorchRunner

        return ExecutorchRunner(program), "executorch"
    if device == "gpu":
        runner = _gpu_runner(program, emulate, adapter)
        return runner, _gpu_name(runner)
    if device == "auto":
        return _automatic(program, emulate, stages or Stages())
    return _reference_runner(program, emulate), "reference"


def check_device(device: str) -> tuple[str, str | None]:
    """`device` without the adapter that it may name, and that. `InputError` for an unknown one."""
    kind, colon, adapter = device.partition(":")
    if kind not in DEVICES or (colon and (kind != "gpu" or not adapter)):
        expected = ", ".join(DEVICES)
        raise InputError(
            f"--device is {device!r}, expected one of {expected}, or gpu:NAME with the name or "
            "number of an adapter from `quatrain devices`"
        )
    return kind, adapter or None


def _automatic(program: Program, emulate: str | None, stages: Stages) -> tuple[ProgramRunner, str]:
    """The real GPU, else the faster of the software one and the reference."""
    try:
        gpu = _gpu_runner(program, emulate)
    except InputError as error:  # no adapter, or no kernel for an operator
        reason = str(error).removeprefix(f"{program.path}: ").partition(";")[0].partition(":")[0]
        return _reference_runner(program, emulate), f"reference ({reason})"
    info = gpu.gpu.info
    if not info.is_cpu or not reference_fits(program.vulkan):
        return gpu, _gpu_name(gpu)
    seconds = _measured(program, gpu, stages)
    if seconds is None:
        return gpu, _gpu_name(gpu)
    ours, theirs = f"{1 / seconds['reference']:.1f}", f"{1 / seconds['gpu']:.1f}"
    if seconds["reference"] < seconds["gpu"]:
        named = f"reference (measured {ours} tokens/s, {info.name} {theirs})"
        return _reference_runner(program, emulate), named
    return gpu, f"{_gpu_name(gpu)} (measured {theirs} tokens/s, the reference {ours})"


def _measured(program: Program, gpu: "WgpuRunner", stages: Stages) -> dict[str, float] | None:
    """Seconds per decode step on "gpu" and "reference", from the cache where they were measured
    before; None where the reference lacks an operator."""
    info = gpu.gpu.info
    kept = KeptSpeeds(program.vulkan, f"{info.name} {info.driver}")
    seconds = kept.read()
    if seconds is None:
        one = one_token(program)
        with stages("measure which runtime is faster"):
            try:
                reference = _reference_runner(program, None)
            except InputError:
                return None
            seconds = {"gpu": decode_seconds(gpu, one), "reference": decode_seconds(reference, one)}
        kept.write(seconds)
    return seconds


def _reference_runner(program: Program, emulate: str | None) -> ProgramRunner:
    from quatrain.runtime.reference import ReferenceRunner

    return ReferenceRunner(program, emulate=emulate)


def _gpu_runner(program: Program, emulate: str | None, adapter: str | None = None) -> "WgpuRunner":
    try:
        from quatrain.runtime.wgpu import WgpuRunner
    except ImportError as error:
        raise InputError(f"--device gpu needs wgpu: pip install wgpu ({error})") from error
    return WgpuRunner(program, adapter, emulate)


def _gpu_name(runner: "WgpuRunner") -> str:
    return f"gpu, {runner.gpu.info.name}"


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


def eos_ids(metadata: dict[str, Any]) -> list[int]:
    """The end-of-sequence tokens that a program names itself, maybe none."""
    found = metadata.get("get_eos_ids", [])
    return list(found) if isinstance(found, list | tuple) else [int(found)]


def find_tokenizer(model: Path | str, *folders: Path) -> Path:
    """The tokenizer beside `model`, `<stem>.tokenizer.json` or else tokenizer.json, or the
    tokenizer.json of the first of `folders` that has one."""
    model = Path(model)
    own = beside(model, TOKENIZER)
    for file in (own, *(folder / TOKENIZER for folder in (model.parent, *folders))):
        if file.is_file():
            return file
    elsewhere = "".join(f", none in {folder}" for folder in folders)
    raise InputError(
        f"{model}: no tokenizer beside it ({own.name} or tokenizer.json){elsewhere}; "
        "copy the model's tokenizer.json there"
    )
