"""The report of a release as plain data: report.json."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from quatrain.json_files import finite
from quatrain.release.gates import gates_of
from quatrain.release.keys import with_keys
from quatrain.release.plan import PhonePlan, PlannedFile, ReleasePlan
from quatrain.release.spec import ANY, ReleaseSpec
from quatrain.release.tasks.store import PROGRAM, Made, versions
from quatrain.targets.runtimes import known_releases, release_line

FORMAT = "quatrain-report-1"


@dataclass(frozen=True)
class MadeFile:
    """A program of a release, and the tasks that say something of it."""

    planned: PlannedFile
    export: Made
    verify: Made
    expect: Made
    quality: Made
    speed: Made
    doctor: Made

    @property
    def sha256(self) -> str:
        """Of the program."""
        return self.export.files[PROGRAM]


def report_data(
    plan: ReleasePlan,
    spec: ReleaseSpec,
    files: Sequence[MadeFile],
    quantized: Mapping[str, Any] | None,
    licence: Mapping[str, Any],
    layers: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The report; nothing in it but the speed depends on where or when the release was made.

    Numbers that are not finite, which JSON has no word for, are None.
    """
    rows = (row for made in files for row in made.quality.result["rows"])
    compared = any(row["kl"] is not None for row in rows)
    of_file = {made.planned.file: made for made in files}
    phones = [_phone(phone, of_file[phone.file], spec) for phone in plan.phones]
    said = {
        "format": FORMAT,
        "name": plan.name,
        "made_with": versions(),
        "runtime": spec.runtime,
        "asked_about": asked_about(spec),
        "phones": phones,
        "files": [_file(made, plan) for made in files],
        "quantized": quantized,
        "measured_against": "the model in floating point" if compared else None,
        "shown": {made.planned.file: made.quality.result["shown"] for made in files},
        "layers": layers,
        "samples": _samples(files, len(spec.prompts)),
        "licence": licence,
    }
    gates = gates_of(spec, said)
    return finite(said) | {
        "gates": gates,
        "failures": [one["said"] for one in gates if not one["passed"]],
    }


def asked_about(spec: ReleaseSpec) -> str:
    """The release line whose defects decide; ANY if none is named."""
    return ANY if spec.runtime is None else release_line(spec.runtime)


def _phone(phone: PhonePlan, made: MadeFile, spec: ReleaseSpec) -> dict[str, Any]:
    found = made.doctor.result.get(phone.gpu or "", {})
    releases = dict.fromkeys((*known_releases(), asked_about(spec)))
    defects = {release: _defects(found.get(release, [])) for release in releases}
    return asdict(phone) | {"defects": defects if found else None}


def _defects(findings: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What fails there, and what else there is to know."""
    keys = ("defect", "title", "kind", "certainty", "consequence", "remedy", "fixed_in")
    short = [{key: one[key] for key in keys} | {"fails": one["applies"]} for one in findings]
    return {
        "fails": [one for one in short if one["fails"]],
        "other": [one for one in short if not one["fails"]],
    }


def _file(made: MadeFile, plan: ReleasePlan) -> dict[str, Any]:
    options, planned = made.planned.options, made.planned
    return {
        "file": planned.file,
        "bytes": made.export.result["bytes"],
        "sha256": made.sha256,
        "backend": options.backend,
        "scheme": str(options.scheme),
        "activation_dtype": options.activation_dtype,
        "max_seq_len": made.export.result["max_seq_len"],
        "memory": planned.predicted_bytes.memory,
        "kernels": made.export.result["kernels"],
        "notes": [with_keys(note) for note in made.export.result["notes"]],
        "verify": made.verify.result,
        "quality": made.quality.result["rows"],
        "speed": made.speed.result,
        "phones": [phone.id for phone in plan.phones if phone.file == planned.file],
    }


def _samples(files: Sequence[MadeFile], count: int) -> list[dict[str, Any]]:
    """The `count` prompts, each with what every program answers, in the first of its
    arithmetics."""
    samples = []
    for index, asked in enumerate(files[0].expect.result["prompts"][:count]):
        answers = [
            {
                "file": made.planned.file,
                "text": made.expect.result["prompts"][index]["text"],
                "differs": (made.quality.result["answers"] or [None] * count)[index],
            }
            for made in files
        ]
        samples.append({"prompt": asked["prompt"], "chat": asked["chat"], "answers": answers})
    return samples
