"""Decides which file goes to which phone, and why, from headers and before any work."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from quatrain.checkpoint.checkpoint import Checkpoint
from quatrain.errors import InputError
from quatrain.export.for_target import planned_program
from quatrain.export.options import ExportOptions
from quatrain.export.plan.plan import (
    CheckpointPlan,
    QuantizeRequest,
    refuse_quantizing,
    weightless_source,
)
from quatrain.export.plan.programs import PlannedBytes, programs_of
from quatrain.export.request import ExportRequest
from quatrain.int4 import Scheme
from quatrain.quantize.tensor_formats import ForBackend
from quatrain.release.spec import QUANTIZING, ReleaseSpec
from quatrain.targets import TargetChoice, choose_for_target
from quatrain.targets.as_on import arithmetic_as_on
from quatrain.targets.cpu import GATED_DELTA_RULE, lacking_on_cpu
from quatrain.targets.phones import by_chip, find_device, find_phone
from quatrain.targets.runtimes import needs_older_forms

CPU = "cpu"


@dataclass(frozen=True)
class PlannedFile:
    """A program that will be written: its name, how it is exported, and how large it will be."""

    file: str
    options: ExportOptions
    predicted_bytes: PlannedBytes


@dataclass(frozen=True)
class PhonePlan:
    """What one phone gets.

    Attributes:
        id: Of the phone or GPU, as in the catalogue.
        name: The same for people.
        gpu: The profile of its GPU; None if there is none.
        file: Of its program.
        reasons: Why that one, sentences.
        why: The one of them that decided.
        as_on: Whose arithmetic it computes: its GPU's, where that differs from the usual.
    """

    id: str
    name: str
    gpu: str | None
    file: str
    reasons: list[str]
    why: str
    as_on: str | None = None

    def on_cpu(self, file: str, why: str) -> "PhonePlan":
        """The same phone with the CPU's program, `file`."""
        return replace(self, file=file, reasons=[why], why=why, as_on=None)


def cpus_reason(gpu: str | None, findings: Sequence[Mapping[str, Any]]) -> str:
    """Why a phone gets the CPU's program: the doctor's `findings` that apply on its `gpu`."""
    said = [f"{one['defect']}: {one['consequence']}; {one['remedy']}" for one in findings]
    return f"the CPU's program: on its GPU, {gpu}, {'; '.join(said)}"


@dataclass(frozen=True)
class ReleasePlan:
    """What a release will consist of.

    Attributes:
        source: The path that is read.
        name: What its files begin with.
        checkpoint: What is quantized; None if the source is a checkpoint.
        files: The programs.
        phones: What each phone gets.
    """

    source: str
    name: str
    checkpoint: CheckpointPlan | None
    files: list[PlannedFile]
    phones: list[PhonePlan] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The plan as plain data, ready for JSON."""
        files = [
            {
                "file": one.file,
                "backend": one.options.backend,
                "scheme": one.options.scheme,
                "activation_dtype": one.options.activation_dtype,
                "predicted_bytes": asdict(one.predicted_bytes),
                "phones": [phone.id for phone in self.phones if phone.file == one.file],
            }
            for one in self.files
        ]
        phones = [asdict(phone) for phone in self.phones]
        checkpoint = asdict(self.checkpoint) if self.checkpoint else None
        said = {"source": self.source, "name": self.name, "checkpoint": checkpoint}
        return said | {"files": files, "phones": phones}

    @property
    def cpu(self) -> str | None:
        """The program that every phone runs; None if there is none."""
        return next((one.file for one in self.files if one.options.backend == "xnnpack"), None)

    @property
    def quantized_for(self) -> ForBackend:
        """Whose kernels take the checkpoint."""
        return "vulkan" if self.cpu is None else "any"

    def shared(self, alike: Mapping[str, str]) -> "ReleasePlan":
        """The plan with one of the files whose bytes are `alike`, by the name of each."""
        phones = [replace(phone, file=alike[phone.file]) for phone in self.phones]
        files = [one for one in self.files if alike[one.file] == one.file]
        return replace(self, files=files, phones=phones)

    def on_cpu(self, failing: Mapping[str, str]) -> "ReleasePlan":
        """The plan in which phones get the CPU's program, by their ids with why: if there is one.
        Files that no phone gets any more are left out."""
        cpu = self.cpu
        if cpu is None or not failing:
            return self
        phones = [
            one.on_cpu(cpu, failing[one.id]) if one.id in failing else one for one in self.phones
        ]
        wanted = {cpu, *(one.file for one in phones)}
        files = [one for one in self.files if one.file in wanted]
        return replace(self, files=files, phones=phones)

    def as_on(self, file: PlannedFile) -> list[str | None]:
        """Whose arithmetic the phones that get `file` have, each once."""
        found = dict.fromkeys(one.as_on for one in self.phones if one.file == file.file)
        return list(found) or [None]


def plan_release(source: Path, name: str, spec: ReleaseSpec) -> ReleasePlan:
    """Decide, from file headers only, which programs `spec` makes from `source`; their files begin
    with `name`.

    Raises `InputError` if the source cannot be read, a phone is unknown, or `spec` says how to
    quantize although the source is a checkpoint.
    """
    weightless, checkpoint = weightless_source(source, QuantizeRequest(**spec.quantizing))
    if checkpoint is None:
        _refuse_quantizing(source, spec)
    planner = _Planner(weightless, name, spec)
    named = dict.fromkeys(each.lower() for asked in spec.phones for each in by_chip(asked))
    phones = [planner.phone(each) for each in named]
    if spec.cpu or not planner.files:
        planner.cpu_file()
    return ReleasePlan(str(source), name, checkpoint, list(planner.files.values()), phones)


def _refuse_quantizing(checkpoint: Path, spec: ReleaseSpec) -> None:
    for name in QUANTIZING:
        if (stated := getattr(spec, name)) is not None:
            refuse_quantizing(checkpoint, name, stated)


class _Planner:
    """Gathers the files that phones need; what is alike is one."""

    def __init__(self, weightless: Checkpoint, name: str, spec: ReleaseSpec) -> None:
        self.weightless, self.name, self.spec = weightless, name, spec
        planned = planned_program(weightless, spec.max_seq_len, spec.prefill_chunk_size)
        self.planned = replace(planned, scheme=spec.scheme)
        self.files: dict[str, PlannedFile] = {}  # by what is asked of each

    def cpu_file(self, phone: str | None = None) -> str:
        """The file for the CPU, which `phone` needs."""
        request = ExportRequest(
            scheme=Scheme.DYNAMIC_INT8, backend="xnnpack", max_seq_len=self.spec.max_seq_len,
            prefill_chunk_size=self.spec.prefill_chunk_size,
        )  # fmt: skip
        planned = self._lacking_on_cpu() or self._file(CPU, request.options(), CPU)
        if isinstance(planned, str):
            remedy = f"; or leave out {phone}, which needs it" if phone else ""
            if phone is None and self.files:
                remedy = "; or make only the programs for GPUs: cpu = false in --spec"
            said = planned.rstrip(".")
            raise InputError(f"no program for the CPU can be made: {said}{remedy}")
        return planned.file

    def _lacking_on_cpu(self) -> str | None:
        config = self.weightless.config
        lacking = lacking_on_cpu(GATED_DELTA_RULE, self.spec.runtime)
        if lacking and any(config.layer(index).recurs for index in range(config.n_layers)):
            return f"{lacking}; name a later --runtime"
        return None

    def phone(self, asked: str) -> PhonePlan:
        """What the phone `asked` gets: its GPU's program, or the CPU's where none is right."""
        phone = find_phone(asked)
        if phone is not None and phone.gpu_id is None:
            why = f"its GPU, a {phone.gpu}, has no profile"
            return self._on_cpu(asked, phone.name, None, why)
        gpu, _ = find_device(asked)
        name = phone.name if phone else gpu.name
        runtime = self.spec.runtime
        choice = choose_for_target(asked, runtime, self.planned)
        request = ExportRequest(
            scheme=self.spec.scheme, target=asked, runtime=runtime,
            max_seq_len=self.spec.max_seq_len, prefill_chunk_size=self.spec.prefill_chunk_size,
        )  # fmt: skip
        # The doctor is asked afterwards, of every phone that gets the file.
        options = replace(request.options(choice), examine=False)
        planned = self._file(_program_key(choice), options, gpu.id)
        if isinstance(planned, str):
            return self._on_cpu(asked, name, gpu.id, planned)
        usual = arithmetic_as_on(gpu.id) == arithmetic_as_on(None)
        as_on = None if usual or choice.scheme == Scheme.WEIGHT_ONLY else gpu.id
        file, reasons, why = planned.file, choice.reasons, choice.decided
        return PhonePlan(asked, name, gpu.id, file, reasons, why, as_on)

    def _on_cpu(self, asked: str, name: str, gpu: str | None, why: str) -> PhonePlan:
        said = f"the CPU's program: {why}"
        return PhonePlan(asked, name, gpu, self.cpu_file(asked), [said], said)

    def _file(self, need: str, options: ExportOptions, gpu: str) -> PlannedFile | str:
        """The file for `need`; or the reason why there can be none."""
        if need in self.files:
            return self.files[need]
        (program,) = programs_of(self.weightless, [options])
        if program.predicted_bytes is None:
            return str(program.refused)
        kind = CPU if need == CPU else f"{program.scheme}-{program.activation_dtype}"
        file, taken = f"{self.name}-{kind}.pte", [one.file for one in self.files.values()]
        if file in taken:
            file = f"{self.name}-{kind}-{gpu}.pte"
        self.files[need] = PlannedFile(file, options, program.predicted_bytes)
        return self.files[need]


def _program_key(choice: TargetChoice) -> str:
    """What decides on the bytes of a program for a phone."""
    older = needs_older_forms(choice.runtime)
    said = [choice.scheme, choice.activation_dtype, choice.partitioner, older]
    return json.dumps(said, sort_keys=True)
