"""What there is to say of a release, as plain data: report.json, which the pages show."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from quatrain.release.plan import PhonePlan, PlannedFile, ReleasePlan
from quatrain.release.spec import ANY, ReleaseSpec
from quatrain.release.store import PROGRAM, Made, versions
from quatrain.targets.doctor import FAILURES
from quatrain.targets.runtimes import known_releases, release_line

FORMAT = "quatrain-report-1"


@dataclass(frozen=True)
class MadeFile:
    """A program of a release, and the pieces that say something of it."""

    planned: PlannedFile
    export: Made
    verify: Made
    expect: Made
    quality: Made
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
) -> dict[str, Any]:
    """The report; nothing in it depends on where or when the release was made."""
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
        "measured_against": "the model in floating point" if _compared(files) else None,
        "shown": {made.planned.file: made.quality.result["shown"] for made in files},
        "samples": _samples(files),
        "licence": licence,
    }
    gates = gates_of(spec, said)
    return said | {"gates": gates, "failures": [one["said"] for one in gates if not one["passed"]]}


def asked_about(spec: ReleaseSpec) -> str:
    """The release line whose defects decide; ANY where none is named."""
    return ANY if spec.runtime is None else release_line(spec.runtime)


def _compared(files: Sequence[MadeFile]) -> bool:
    return any(row["kl"] is not None for made in files for row in made.quality.result["rows"])


def _phone(phone: PhonePlan, made: MadeFile, spec: ReleaseSpec) -> dict[str, Any]:
    found = made.doctor.result.get(phone.gpu or "", {})
    releases = dict.fromkeys((*known_releases(), asked_about(spec)))
    hazards = {release: _hazards(found.get(release, [])) for release in releases}
    return asdict(phone) | {"hazards": hazards if found else None}


def _hazards(findings: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What fails there, and what else there is to know."""
    keys = ("hazard", "title", "kind", "certainty", "consequence", "remedy", "fixed_in")
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
        "memory": planned.bytes.memory,
        "kernels": made.export.result["kernels"],
        "notes": made.export.result["notes"],
        "verify": made.verify.result,
        "quality": made.quality.result["rows"],
        "phones": [phone.id for phone in plan.phones if phone.file == planned.file],
    }


def _samples(files: Sequence[MadeFile]) -> list[dict[str, Any]]:
    """The prompts, each with what every program answers, in the first of its arithmetics."""
    prompts = files[0].expect.result["prompts"]
    asked = dict.fromkeys((one["prompt"], one["chat"]) for one in prompts)
    samples = []
    for index, (prompt, chat) in enumerate(asked):
        answers = [
            {
                "file": made.planned.file,
                "text": made.expect.result["prompts"][index]["text"],
                "differs": (made.quality.result["answers"] or [None] * len(asked))[index],
            }
            for made in files
        ]
        samples.append({"prompt": prompt, "chat": chat, "answers": answers})
    return samples


def gates_of(spec: ReleaseSpec, report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What had to hold: "gate", "of" (a file or phone), "said" (a sentence), "passed"."""
    gates: list[dict[str, Any]] = []

    def gate(name: str, of: str, passed: bool, said: str) -> None:
        gates.append({"gate": name, "of": of, "passed": passed, "said": f"{of}: {said}"})

    for file in report["files"]:
        verify, name = file["verify"], file["file"]
        problems = "; ".join(verify["problems"])
        gate("verify", name, verify["passed"], problems or "computes what its checkpoint means")
        if spec.max_mb is not None:
            size = file["bytes"] / 1e6
            gate("max-mb", name, size <= spec.max_mb, f"{size:.1f} MB, allowed {spec.max_mb:g}")
        for row in file["quality"]:
            where = " ".join(
                filter(None, (row["regime"], row["as_on"] and f"as on {row['as_on']}"))
            )
            of = f"{name} ({where})" if where else name
            if spec.max_kl is not None:
                said = f"KL {row['kl']:.4f} nats, allowed {spec.max_kl:g}"
                gate("max-kl", of, row["kl"] <= spec.max_kl, said)
            if spec.max_perplexity_ratio is not None:
                said = f"perplexity {row['ratio']:.4f} x floating point"
                allowed = spec.max_perplexity_ratio
                gate(
                    "max-perplexity-ratio",
                    of,
                    row["ratio"] <= allowed,
                    f"{said}, allowed {allowed:g}",
                )
    for phone in report["phones"]:
        there = (phone["hazards"] or {}).get(report["asked_about"], {"fails": [], "other": []})
        failing = [f"{one['hazard']}: {one['consequence']}" for one in there["fails"]]
        gate("phone", phone["id"], not failing, "; ".join(failing) or "no known defect applies")
        if spec.no_hazards:
            possible = [one["hazard"] for one in there["other"] if one["kind"] in FAILURES]
            said = f"possible: {', '.join(possible)}" if possible else "no known defect is possible"
            gate("no-hazards", phone["id"], not (failing or possible), said)
    return gates
