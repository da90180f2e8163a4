"""Which release's file goes to which phone, for each model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from quatrain.release.matrix.cells import Cell
from quatrain.release.tasks.store import versions

FORMAT = "quatrain-matrix-report-1"
EVERY = "every phone"  # if none is named: what the CPU's program is for
OTHER = "any other phone"  # where some are
_Report = Mapping[str, Any]  # a release's


def matrix_report(cells: Sequence[Cell], reports: Mapping[str, _Report]) -> dict[str, Any]:
    """The content of report.json over the `reports` of `cells`, by their names."""
    by_model: dict[str, dict[str, _Report]] = {}
    for cell in cells:
        by_model.setdefault(cell.model, {})[cell.name] = reports[cell.name]
    return {
        "format": FORMAT,
        "made_with": versions(),
        "cells": [_cell(cell, reports[cell.name]) for cell in cells],
        "models": [_model(own) for own in by_model.values()],
    }


def phones_of(model: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of a model of report.json the phones, and after them what all others are."""
    return [*model["phones"], *([model["other"]] if model["other"] else [])]


def _cell(cell: Cell, report: _Report) -> dict[str, Any]:
    return {
        "cell": cell.name,
        "model": report["name"],
        "quantized": report["quantized"] is not None,
        "method": cell.spec.method,
        "scheme": cell.spec.scheme and str(cell.spec.scheme),
        "files": len(report["files"]),
        "failures": report["failures"],
    }


def _model(reports: Mapping[str, _Report]) -> dict[str, Any]:
    """Each phone with what every cell of one model has for it, the best first; "other": the same
    for phones that are not named, the CPU's programs; None without them."""
    first = next(iter(reports.values()))
    named = {one["id"]: one["name"] for one in first["phones"]}
    on_cpu = all(
        any(file["backend"] == "xnnpack" for file in one["files"]) for one in reports.values()
    )
    return {
        "model": first["name"],
        "phones": [_phone(id, name, reports) for id, name in (named or {None: EVERY}).items()],
        "other": _phone(None, OTHER, reports) if on_cpu and named else None,
    }


def _phone(id: str | None, name: str, reports: Mapping[str, _Report]) -> dict[str, Any]:
    choices = [_choice(cell, report, id) for cell, report in reports.items()]
    choices.sort(key=_rank)  # as named, where nothing tells them apart
    return {"phone": name, "id": id, "why": _why(choices[0], choices), "choices": choices}


def _choice(cell: str, report: _Report, phone: str | None) -> dict[str, Any]:
    """What `phone` gets in one cell, and how good that is: the largest KL of its arithmetics."""
    if phone is None:
        (file,) = [one for one in report["files"] if one["backend"] == "xnnpack"][:1]
    else:
        (own,) = [one for one in report["phones"] if one["id"] == phone]
        (file,) = [one for one in report["files"] if one["file"] == own["file"]]
    about = (file["file"], f"{file['file']} (", phone)
    failures = [
        gate["said"]
        for gate in report["gates"]
        if not gate["passed"] and (gate["of"] in about or gate["of"].startswith(about[1]))
    ]
    worst = max(file["quality"], key=_divergence)
    kept = ("kl", "kl_error", "ratio")
    said = {"cell": cell, "file": f"{cell}/{file['file']}", "backend": file["backend"]}
    figures = {"bytes": file["bytes"], **{key: worst[key] for key in kept}}
    return said | figures | {"failures": failures}


def _rank(choice: Mapping[str, Any]) -> tuple[bool, bool, float]:
    return bool(choice["failures"]), choice["backend"] != "vulkan", _divergence(choice)


def _divergence(row: Mapping[str, Any]) -> float:
    """The KL; without a bound where it is null, as JSON has what is not finite."""
    return math.inf if row["kl"] is None else row["kl"]


def _why(best: Mapping[str, Any], choices: Sequence[Mapping[str, Any]]) -> str:
    """Why the first of `choices` is first."""
    if best["failures"]:
        return f"none passes every check; the first failure of this one: {best['failures'][0]}"
    holding = [one for one in choices if not one["failures"]]
    alike = [one for one in holding if one["backend"] == best["backend"]]
    said = [] if len(holding) == len(choices) else [f"{len(holding)} of {len(choices)} pass"]
    if len(alike) < len(holding):
        said.append("it runs on the GPU")
    if best["kl"] is None:
        said.append(
            "the first one named; without a floating-point model (--reference) they cannot be "
            "compared"
        )
    else:
        least = f", the lowest of {len(alike)}" if len(alike) > 1 else ""
        said.append(f"KL {best['kl']:.4f} nats{least}")
    return "; ".join(said)
