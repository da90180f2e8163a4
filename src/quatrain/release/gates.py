"""The conditions of a release: those that always apply, and the requested gates."""

from collections.abc import Iterator, Mapping
from typing import Any

from quatrain.release.spec import ReleaseSpec
from quatrain.targets.doctor import FAILURES

_Gate = dict[str, Any]


def gates_of(spec: ReleaseSpec, report: Mapping[str, Any]) -> list[_Gate]:
    """What had to hold: "gate", "of" (a file or phone), "said" (a sentence), "passed"."""
    files = [gate for file in report["files"] for gate in _of_file(spec, file)]
    asked = report["asked_about"]
    return files + [gate for phone in report["phones"] for gate in _of_phone(spec, phone, asked)]


def _gate(name: str, of: str, passed: bool, said: str) -> _Gate:
    return {"gate": name, "of": of, "passed": passed, "said": f"{of}: {said}"}


def _of_file(spec: ReleaseSpec, file: Mapping[str, Any]) -> Iterator[_Gate]:
    verify, name = file["verify"], file["file"]
    problems = "; ".join(verify["problems"])
    yield _gate("verify", name, verify["passed"], problems or "computes the same as its checkpoint")
    if spec.max_mb is not None:
        size, allowed = file["bytes"] / 1e6, spec.max_mb
        said = f"{_beside(size, allowed, 1)} MB, allowed {allowed:.10g}"
        yield _gate("max-mb", name, size <= allowed, said)
    for row in file["quality"]:
        yield from _of_quality(spec, name, row)


def _of_quality(spec: ReleaseSpec, name: str, row: Mapping[str, Any]) -> Iterator[_Gate]:
    """In one arithmetic and regime."""
    as_on = f"as on {row['as_on']}" if row["as_on"] else None
    where = " ".join(filter(None, (row["regime"], as_on)))
    of = f"{name} ({where})" if where else name
    if spec.max_kl is not None:
        found, allowed = row["kl"], spec.max_kl
        said = f"KL {_beside(found, allowed, 4)} nats, allowed {allowed:.10g}"
        yield _gate("max-kl", of, found <= allowed, said)
    if spec.max_perplexity_ratio is not None:
        found, allowed = row["ratio"], spec.max_perplexity_ratio
        said = f"perplexity {_beside(found, allowed, 4)} x floating point, allowed {allowed:.10g}"
        yield _gate("max-perplexity-ratio", of, found <= allowed, said)


def _beside(found: float, allowed: float, decimals: int) -> str:
    """`found` in so many decimals, or in as many as it takes to be on the right side of what is
    `allowed`: of 0.20003 nats 0.2000 would be."""
    texts = (f"{found:.{digits}f}" for digits in range(decimals, 18))
    right = found <= allowed
    return next((text for text in texts if (float(text) <= allowed) == right), str(found))


def _of_phone(spec: ReleaseSpec, phone: Mapping[str, Any], asked: str) -> Iterator[_Gate]:
    there = (phone["defects"] or {}).get(asked, {"fails": [], "other": []})
    failing = [f"{one['defect']}: {one['consequence']}" for one in there["fails"]]
    said = "; ".join(failing) or "no known defect applies"
    yield _gate("phone", phone["id"], not failing, said)
    if spec.no_defects:
        possible = [one["defect"] for one in there["other"] if one["kind"] in FAILURES]
        said = f"possible: {', '.join(possible)}" if possible else "no known defect is possible"
        yield _gate("no-defects", phone["id"], not (failing or possible), said)
