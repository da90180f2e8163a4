"""The tasks of one release, in the order in which they need each other."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from quatrain.checkpoint.files.hub import local_path
from quatrain.checkpoint.open import is_quantized
from quatrain.checkpoint.source_files import source_files
from quatrain.errors import InputError
from quatrain.quantize.cost import HELD_OUT_TEXT
from quatrain.release.measure.speed import here
from quatrain.release.plan import PlannedFile, ReleasePlan, cpus_reason
from quatrain.release.report.report import MadeFile, asked_about
from quatrain.release.spec import ReleaseSpec
from quatrain.release.tasks.store import PROGRAM, Made, Store, Task
from quatrain.release.tasks.workers import Workers, make_all
from quatrain.stages import Stages, installed_memory_bytes
from quatrain.text_files import read_text
from quatrain.tokenizer.files import TOKENIZER, files_of

_PAYS_FROM = 100 << 20  # bytes of all programs: below, processes take longer to start than to work
_HELD = 4  # times its file a program takes in memory while it is worked on, at most


class Pipeline:
    """The tasks of one release, made in the order in which they need each other."""

    def __init__(
        self, source: Path, plan: ReleasePlan, spec: ReleaseSpec, chat: bool, store: Store,
        stages: Stages, workers: Workers,
    ) -> None:  # fmt: skip
        self.source, self.plan, self.spec, self.chat = source, plan, spec, chat
        self.store, self.stages, self.workers = store, stages, workers
        self.tokenizer = None if spec.tokenizer is None else Path(spec.tokenizer)
        self.tasks: list[Task] = []
        self._digests_at_first: dict[Path, list[str]] = {}
        self.quantized: Made | None = None
        self.layers: Made | None = None  # of the whole model; None without one in floating point

    def files(self) -> list[MadeFile]:
        """All programs, and all that is known of each."""
        if self.plan.checkpoint is not None:
            self.quantized = self._quantize()
        exports, doctored = self._exports()
        planned = self.plan.files
        exported = [exports[one.file] for one in planned]
        pairs = list(zip(planned, exported, strict=True))
        verified = self._run([self._verify(*one) for one in pairs])
        expected = self._run([self._expect(*one) for one in pairs])
        of_files = [
            self._quality(*one, answers) for one, answers in zip(pairs, expected, strict=True)
        ]
        of_layers = self._layers(exported[0])
        measured = self._run([*of_files, *of_layers])
        self.layers = measured.pop() if of_layers else None
        # What is made beside it would slow it down.
        timed = self._run_sequentially([self._speed(*one) for one in pairs])
        known = [doctored[one.file] for one in planned]
        every = zip(planned, exported, verified, expected, measured, timed, known, strict=True)
        return [MadeFile(*one) for one in every]

    def sources(self) -> dict[str, list[dict[str, Any]]]:
        """Name, bytes and SHA-256 of the files of the model, and of the one it is held against."""
        reference = reference_of(self.source, self.spec)
        apart = None if reference == self.source else reference
        return {"source": self._digested(self.source), "reference": self._digested(apart)}

    def checkpoint_files(self) -> dict[str, str] | None:
        """The SHA-256 of what was quantized, by file; None if nothing was."""
        return self.quantized.files if self.quantized else None

    def _digested(self, path: Path | None) -> list[dict[str, Any]]:
        if path is None:
            return []
        return [
            {"name": file.name, "bytes": file.stat().st_size, "sha256": digest}
            for file, digest in zip(source_files(path, None), self._digests(path), strict=True)
        ]

    def _digests(self, path: Path) -> list[str]:
        """Of the files of a model. Raises `InputError` if they are others than before."""
        found = [self.store.digest(file) for file in source_files(path, None)]
        if self._digests_at_first.setdefault(path, found) != found:
            raise InputError(f"{path}: changed while the release was made; run the command again")
        return found

    def _tokenizer(self) -> list[str]:
        given = self.tokenizer
        return [] if given is None else [self.store.digest(file) for file in files_of(given)]

    def _run(self, tasks: Sequence[Task]) -> list[Made]:
        self.tasks += tasks
        return make_all(self.store, tasks, self.workers, self.stages)

    def _run_sequentially(self, tasks: Sequence[Task]) -> list[Made]:
        """One after another, in this process, with nothing else running."""
        self.tasks += tasks
        return make_all(self.store, tasks, Workers(1, 0), self.stages)

    def _quantize(self) -> Made:
        spec, backend = self.spec, self.plan.quantized_for
        said = {
            "source": self._digests(self.source), "tokenizer": self._tokenizer(),
            **spec.quantizing, "scheme": spec.scheme, "backend": backend,
        }  # fmt: skip
        arguments = {
            "source": self.source, "spec": spec, "backend": backend, "stages": self.stages
        }  # fmt: skip
        return self._run([Task("quantize", "quantize", said, arguments)])[0]

    @property
    def checkpoint(self) -> Path:
        """What is exported."""
        return self.quantized.folder if self.quantized else self.source

    def _checkpoint_digests(self) -> list[str]:
        made = self.quantized
        return sorted(made.files.values()) if made else self._digests(self.source)

    def _exports(self) -> tuple[dict[str, Made], dict[str, Made]]:
        """The programs by name, and the doctor's findings for each; the plan updated by both: equal
        files are merged, and a phone to which a defect applies gets the CPU's program."""
        planned = self.plan.files
        made = self._run([self._export(one) for one in planned])
        exports = {one.file: export for one, export in zip(planned, made, strict=True)}
        first: dict[str, str] = {}
        alike = {
            file: first.setdefault(export.files[PROGRAM], file) for file, export in exports.items()
        }
        self.plan = self.plan.shared(alike)
        planned = self.plan.files
        # Each takes less than a process takes to begin.
        made = self._run_sequentially([self._doctor(one, exports[one.file]) for one in planned])
        doctored = {one.file: examined for one, examined in zip(planned, made, strict=True)}
        self.plan = self.plan.on_cpu(self._failing(doctored))
        return exports, doctored

    def _failing(self, doctored: Mapping[str, Made]) -> dict[str, str]:
        """The phones on which a defect applies to their program, and why they get the CPU's."""
        failing = {}
        for phone in self.plan.phones:
            found = doctored[phone.file].result.get(phone.gpu or "", {})
            applying = [one for one in found.get(asked_about(self.spec), []) if one["applies"]]
            if applying:
                failing[phone.id] = cpus_reason(phone.gpu, applying)
        return failing

    def _export(self, planned: PlannedFile) -> Task:
        options = planned.options
        said = {
            "checkpoint": self._checkpoint_digests(), "tokenizer": self._tokenizer(),
            "backend": options.backend, "scheme": options.scheme,
            "activation_dtype": options.activation_dtype, "max_seq_len": options.max_seq_len,
            "prefill_chunk_size": options.prefill_chunk_size,
            "compile_options": options.compile_options, "older_forms": options.older_forms,
        }  # fmt: skip
        arguments = {
            "checkpoint": self.checkpoint, "options": options, "tokenizer": self.tokenizer,
        }  # fmt: skip
        return Task("export", f"export {planned.file}", said, arguments, advances=True)

    def _verify(self, planned: PlannedFile, export: Made) -> Task:
        device = "reference" if planned.options.backend == "vulkan" else "executorch"
        digests = self._checkpoint_digests()
        said = self._program(export) | {"checkpoint": digests, "device": device}
        program = export.folder / PROGRAM
        arguments = {"program": program, "checkpoint": self.checkpoint, "device": device}
        return Task("verify", f"verify {planned.file}", said, arguments, advances=True)

    def _expect(self, planned: PlannedFile, export: Made) -> Task:
        asked = {
            "prompts": self.spec.prompts, "chat": self.chat, "as_on": self.plan.as_on(planned),
            "new_tokens": self.spec.new_tokens,
        }  # fmt: skip
        arguments = asked | {"program": export.folder / PROGRAM}
        title = f"what {planned.file} answers"
        return Task("expect", title, self._program(export) | asked, arguments, advances=True)

    def _doctor(self, planned: PlannedFile, export: Made) -> Task:
        phones = self.plan.phones
        vulkan = planned.options.backend == "vulkan"
        gpus = sorted({p.gpu for p in phones if p.gpu and p.file == planned.file and vulkan})
        arguments = {"program": export.folder / PROGRAM, "gpus": gpus, "name": planned.file}
        said = self._program(export) | {"gpus": gpus, "name": planned.file}
        return Task("doctor", f"known defects of {planned.file}", said, arguments)

    def _quality(self, planned: PlannedFile, export: Made, expected: Made) -> Task:
        text = self._text()
        reference = reference_of(self.source, self.spec)
        answers = expected.result["prompts"][: len(self.spec.prompts)]
        asked = {
            "text": text, "tokens": self.spec.tokens, "as_on": self.plan.as_on(planned),
            "answers": answers,
        }  # fmt: skip
        digests = [] if reference is None else self._digests(reference)
        said = self._program(export) | asked | {"reference": digests}
        arguments = asked | {"program": export.folder / PROGRAM, "reference": reference}
        return Task("quality", f"measure {planned.file}", said, arguments, advances=True)

    def _layers(self, export: Made) -> list[Task]:
        """The task of the layers; none without a floating-point model."""
        reference = reference_of(self.source, self.spec)
        if reference is None:
            return []
        asked = {"text": self._text(), "tokens": self.spec.tokens}
        said = asked | {
            "checkpoint": self._checkpoint_digests(), "reference": self._digests(reference),
            "tokenizer": export.files[TOKENIZER],
        }  # fmt: skip
        arguments = asked | {
            "checkpoint": self.checkpoint, "reference": reference,
            "tokenizer": export.folder / TOKENIZER,
        }  # fmt: skip
        return [Task("layers", "measure the layers", said, arguments, advances=True)]

    def _speed(self, planned: PlannedFile, export: Made) -> Task:
        asked = {"text": self._text()}
        said = self._program(export) | asked | {"here": here()}
        arguments = asked | {"program": export.folder / PROGRAM}
        return Task("speed", f"time {planned.file}", said, arguments, advances=True)

    def _text(self) -> str:
        return read_text(self.spec.text or HELD_OUT_TEXT)

    def _program(self, export: Made) -> dict[str, Any]:
        """What decides on what a program computes: its bytes, and its tokenizer's."""
        return {"program": export.files}


def usual_workers(files: Sequence[PlannedFile], jobs: int | None, ray: str | None) -> Workers:
    """Those for programs of these sizes; `jobs` is None if it is to be chosen."""
    sizes = [one.predicted_bytes.file for one in files]
    memory = _HELD * max(sizes)
    if jobs is None and sum(sizes) < _PAYS_FROM:
        jobs = 1
    room = max(1, installed_memory_bytes() // memory)
    return Workers(jobs or min(os.cpu_count() or 1, room), memory, ray)


def reference_of(source: Path, spec: ReleaseSpec) -> Path | None:
    """The model in floating point; None if there is none."""
    if spec.reference is not None:
        return local_path(spec.reference)
    return None if is_quantized(source) else source
