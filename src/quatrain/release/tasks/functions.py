"""The tasks of a release: functions of a folder to write to and plain arguments.

A function's name is the kind of its `store.Task`; what it gives is plain data, for JSON, in which
nothing but speed depends on where or when.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from quatrain.export.exporter import export_checkpoint
from quatrain.export.options import ExportOptions
from quatrain.export.template.constants import PACKING
from quatrain.program import open_program
from quatrain.quantize.calibration import Calibration
from quatrain.quantize.pipeline import quantize_model
from quatrain.quantize.tensor_formats import ForBackend
from quatrain.release.measure.float_reference import Answered
from quatrain.release.measure.layers import measure_layers
from quatrain.release.measure.quality import measure_quality
from quatrain.release.measure.speed import measure_speed
from quatrain.release.spec import ANY, ReleaseSpec
from quatrain.release.tasks.store import PROGRAM
from quatrain.stages import Stages
from quatrain.targets.catalogue import find_gpu
from quatrain.targets.doctor import examine
from quatrain.targets.remedy import OF_RELEASE
from quatrain.targets.runtimes import known_releases
from quatrain.tokenizer.files import CONFIG, TOKENIZER, beside
from quatrain.verify.expected import expected_answers
from quatrain.verify.verify import verify_program

Advance = Callable[[float], None]
_VERIFY_STAGES = 6  # of a Vulkan program its layers, of an XNNPACK program without rounding


def quantize(
    folder: Path, source: Path, spec: ReleaseSpec, backend: ForBackend, stages: Stages
) -> dict[str, Any]:
    """The int4 checkpoint of a model in floating point."""
    calibration = Calibration(scheme=spec.scheme) if spec.scheme and spec.method != "rtn" else None
    report = quantize_model(
        source, folder, stages=stages, tokenizer=spec.tokenizer, calibration=calibration,
        backend=backend, **spec.quantizing,
    )  # fmt: skip
    cost = report.against_floating_point
    return {
        "bytes_in": report.bytes_in,
        "weights_bytes": report.weights_bytes,
        "relative_rms_error": report.relative_rms_error_by_part,
        "cost": asdict(cost) if cost else None,
        "notes": report.notes,
    }


def export(
    folder: Path, checkpoint: Path, options: ExportOptions, tokenizer: Path | None,
    advance: Advance,
) -> dict[str, Any]:  # fmt: skip
    """A program, and the tokenizer beside it as one for all programs of a release. `advance` is
    called with the packed fraction of the weights as the second half; the time of the compiler,
    which runs before, is unknown."""

    def progress(name: str, fraction: float, _left: float) -> None:
        if name == PACKING:
            advance((1 + fraction) / 2)

    program = folder / PROGRAM
    stages = Stages(progress=progress)
    report = export_checkpoint(checkpoint, program, options, None, stages, tokenizer)
    for name in (TOKENIZER, CONFIG):
        if (own := beside(program, name)).is_file():
            own.rename(folder / name)
    return {
        "bytes": report.bytes,
        "max_seq_len": report.max_seq_len,
        "kernels": dict(Counter(row.kernel for row in report.linears)),
        "notes": report.notes,
    }


def verify(
    folder: Path, program: Path, checkpoint: Path, device: str, advance: Advance
) -> dict[str, Any]:
    """Whether the program computes what its checkpoint means."""
    stages = Stages.of_parts(_VERIFY_STAGES, advance)
    report = verify_program(program, checkpoint, (device,), stages=stages)
    return {
        "passed": report.passed,
        "device": device,
        # What cannot be computed is not run on a device.
        "logits_error": report.devices[0].parity.logits_error if report.devices else float("inf"),
        "allowed_error": report.allowed_error,
        "problems": report.problems,
        "notes": report.notes,
    }


def expect(
    folder: Path, program: Path, prompts: Sequence[str], chat: bool, as_on: Sequence[str | None],
    new_tokens: int, advance: Advance,
) -> dict[str, Any]:  # fmt: skip
    """The program's answers on its phones, in the form of `expected.json`."""
    answers = [
        asdict(answer)
        for index, name in enumerate(as_on)
        for answer in expected_answers(
            program, prompts, chat, name, new_tokens,
            advance=lambda part, before=index: advance((before + part) / len(as_on)),
        )
    ]  # fmt: skip
    return {"prompts": answers}


def quality(
    folder: Path, program: Path, reference: Path | None, text: str, tokens: int,
    as_on: Sequence[str | None], answers: Sequence[dict[str, Any]], advance: Advance,
) -> dict[str, Any]:  # fmt: skip
    """How far the program is from floating point."""
    answered = [Answered(one["prompt_tokens"], one["tokens"]) for one in answers]
    return measure_quality(program, reference, text, tokens, as_on, answered, advance)


def layers(
    folder: Path, checkpoint: Path, reference: Path, tokenizer: Path, text: str, tokens: int,
    advance: Advance,
) -> dict[str, Any]:  # fmt: skip
    """How far the weights of each layer are from floating point, and what goes into them."""
    return measure_layers(checkpoint, reference, tokenizer, text, tokens, advance)


def speed(folder: Path, program: Path, text: str, advance: Advance) -> dict[str, Any]:
    """How fast the program is on this machine."""
    return measure_speed(program, text, advance)


def doctor(folder: Path, program: Path, gpus: Sequence[str], name: str) -> dict[str, Any]:
    """The known defects that the program, which will be called `name`, meets on each of `gpus`, in
    each release, and in any."""
    opened = open_program(program)

    def found(gpu: str, release: str) -> list[dict[str, Any]]:
        runtime = None if release == ANY else release
        found = examine(opened, [find_gpu(gpu)], runtime, Path(name), OF_RELEASE)
        return [one.as_dict() for one in found]

    return {gpu: {each: found(gpu, each) for each in (*known_releases(), ANY)} for gpu in gpus}


FUNCTIONS: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function
    for function in (quantize, export, verify, expect, quality, layers, speed, doctor)
}
